"""The channels through a volume that two containers have mounted, and which way each of them is open.

Here something is open on purpose, so each channel says exactly what: a test fails if more crosses, and if less does.
The code of both ends is in `tests/isolation/native/volume_files.c` and `volume_objects.c`, by the same names.
"""

from dataclasses import dataclass
from enum import Enum

from tests.isolation.channels import Control


class Sharing(Enum):
    """How two containers have one volume: its owner, who may write, and another."""

    BOTH_WRITE = "both write"
    ONE_READS = "the other only reads"


class Way(Enum):
    """Who learns something of whom."""

    TO_OTHER = "owner → other"
    TO_OWNER = "other → owner"


Opened = frozenset[tuple[Sharing, Way]]


@dataclass(frozen=True)
class VolumeChannel:
    """One way on which something might cross.

    wall: what is in the way, where it is closed. opened: where it is open, exactly.
    """

    name: str
    title: str
    wall: str
    opened: Opened
    control: Control = Control.INSIDE


_BOTH_WAYS = frozenset((Sharing.BOTH_WRITE, way) for way in Way)
_TO_READER = frozenset({(Sharing.ONE_READS, Way.TO_OTHER)})
_TO_WRITER = frozenset({(Sharing.ONE_READS, Way.TO_OWNER)})
_NOWHERE: Opened = frozenset()
_NO_IDS, _READ_ONLY = "no ids, read-only", "read-only"

VOLUME_CHANNELS = (
    VolumeChannel("volume-file", "contents of a file that all may read", _READ_ONLY, _BOTH_WAYS | _TO_READER),
    VolumeChannel("volume-file-of-owner", "contents of a file with mode 0600", _NO_IDS, _BOTH_WAYS),
    VolumeChannel("volume-names", "names in a directory that all may read", _READ_ONLY, _BOTH_WAYS | _TO_READER),
    VolumeChannel("volume-write", "write(2) to a file with mode 0666", _READ_ONLY, _BOTH_WAYS | _TO_READER),
    VolumeChannel("volume-mmap", "mmap(2), MAP_SHARED, of a file", _READ_ONLY, _BOTH_WAYS | _TO_READER),
    VolumeChannel("volume-xattr", "extended attributes", _READ_ONLY, _BOTH_WAYS | _TO_READER),
    VolumeChannel("volume-atime", "times of a file", _READ_ONLY, _BOTH_WAYS | _TO_READER),
    VolumeChannel("volume-hard-link", "number of hard links", _READ_ONLY, _BOTH_WAYS | _TO_READER),
    VolumeChannel("volume-unlink", "removing a file of another", _READ_ONLY, _BOTH_WAYS),
    VolumeChannel("volume-room", "free space (statfs)", _READ_ONLY, _BOTH_WAYS | _TO_READER),
    VolumeChannel("volume-dot-dot", "`..` out of the volume, from an O_PATH fd", "own mount namespace", _NOWHERE),
    VolumeChannel("volume-page-cache", "what was read is cached (mincore)", "–", _BOTH_WAYS | _TO_WRITER),
    VolumeChannel("volume-socket", "unix socket, stream", _NO_IDS, _BOTH_WAYS),
    VolumeChannel("volume-socket-scm_rights", "unix socket, fds passed", _NO_IDS, _BOTH_WAYS),
    VolumeChannel("volume-fifo", "FIFO, and whether somebody reads it", "–", _BOTH_WAYS | _TO_READER | _TO_WRITER),
    VolumeChannel("volume-flock", "flock(2) of a file", "–", _BOTH_WAYS | _TO_READER | _TO_WRITER),
    VolumeChannel("volume-ofd-lock", "fcntl(2) lock of a file", "–", _BOTH_WAYS | _TO_READER | _TO_WRITER),
    VolumeChannel("volume-lease", "a lease (F_SETLEASE) on a file", "–", _BOTH_WAYS | _TO_WRITER),
    VolumeChannel("volume-inotify", "inotify on a file", "–", _BOTH_WAYS | _TO_READER | _TO_WRITER),
    VolumeChannel("volume-fanotify", "fanotify on a file", "–", _BOTH_WAYS | _TO_READER | _TO_WRITER),
    VolumeChannel(
        "volume-open_by_handle_at", "open_by_handle_at(2), a file with mode 0600", "seccomp", _NOWHERE, Control.ON_HOST
    ),
    VolumeChannel("volume-setuid", "a set-uid program", "nosuid", _NOWHERE, Control.SUID),
    VolumeChannel("volume-capabilities", "a program with file capabilities", "nosuid", _NOWHERE, Control.SUID),
)
