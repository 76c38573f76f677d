"""What is refused of volumes in containers, and why, in words for the caller; and what a job says, in the same words.

When it is refused is decided in `sysproc.volume_mounts`.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sysproc.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from sysproc.ids import to_hex
from sysproc.isolation.launcher_client import ChildFailed
from sysproc.running import RunningContainer
from sysproc.storage.volumes import FOREIGN, LUKS, NONE, VolumeRow

_OF_THE_PATH = (
    *(errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EEXIST, errno.ENAMETOOLONG),
    *(errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EAGAIN),
)
_OF_THE_FILESYSTEM = (errno.EINVAL, errno.EUCLEAN, errno.EBADMSG, errno.ENODEV, errno.EIO, errno.EROFS)


def check_below(container: RunningContainer, volume: VolumeRow) -> None:
    """Raise PermissionDenied unless the volume is the host's, the container's own, or of one above it."""
    if volume.owner_id is not None and to_hex(volume.owner_id) not in container.path:
        raise PermissionDenied(
            f"The volume {volume.name} is not of this container, nor of one above it.",
            resolution="A volume can be mounted in its owner and in what is below that.",
            reason="VOLUME_OUT_OF_REACH",
        )


def check_trusted(volume: VolumeRow) -> None:
    """Raise FailedPrecondition for bytes that the host's kernel must not take for a filesystem."""
    if volume.origin == FOREIGN:
        raise FailedPrecondition(
            f"The volume {volume.name} is not mounted: what is in it was written elsewhere, or as a raw disk.",
            details="A kernel that reads a hostile filesystem can be taken over by it.",
            resolution="The host can vouch for it, if it knows where it comes from: `sysproc volume trust`.",
            reason="VOLUME_NOT_TRUSTED",
            metadata={"volume": volume.name},
        )


def check_known(volume: VolumeRow) -> None:
    """Raise FailedPrecondition for what was imported encrypted, and not opened since: what is in it is not known."""
    if volume.encryption != NONE and volume.filesystems[-1].type == LUKS:
        raise FailedPrecondition(
            f"The volume {volume.name} was imported encrypted: which filesystem is in it is not known yet.",
            resolution="Mount it once, with its passphrase or key file.",
            reason="VOLUME_NOT_KNOWN",
            metadata={"volume": volume.name},
        )


def check_changeable(volume: VolumeRow) -> None:
    """Raise FailedPrecondition for a snapshot: it shows its moment for ever."""
    if volume.snapshot is not None:
        raise FailedPrecondition(
            f"The volume {volume.name} is a snapshot of {volume.snapshot.name}: it can only be read.",
            resolution="Mount it read-only; or clone it, and change the clone.",
            reason="SNAPSHOT_READ_ONLY",
            metadata={"volume": volume.name, "snapshot_of": volume.snapshot.name},
        )


@contextmanager
def mount_failures(volume: VolumeRow, wanted_path: bytes) -> Iterator[None]:
    """What the job says, in words for the caller."""
    try:
        yield
    except ChildFailed as failure:
        path = os.fsdecode(wanted_path)
        if failure.errno == errno.ESRCH:
            raise ended() from failure
        if failure.errno == errno.EUSERS:
            raise not_shared(volume) from failure
        if failure.errno == errno.EOPNOTSUPP and failure.target.startswith("/dev/loop"):
            raise not_direct(volume) from failure
        if failure.target.startswith("/") and failure.errno in (*_OF_THE_PATH, errno.EBUSY):
            raise InvalidArgument(
                f"Nothing can be mounted at {path}: {failure.target}: {os.strerror(failure.errno)}.",
                resolution="Name a directory of the container, or one that can be made there.",
                reason="BAD_MOUNT_POINT",
                metadata={"path": path},
            ) from failure
        if failure.errno in (errno.EBUSY, *_OF_THE_FILESYSTEM):
            raise FailedPrecondition(
                f"The volume {volume.name} cannot be mounted.",
                details=f"{failure}.",
                resolution="It is in use as a raw disk, damaged, or of a type that this kernel does not know.",
                reason="VOLUME_UNUSABLE",
                metadata={"volume": volume.name},
            ) from failure
        raise


def not_shared(volume: VolumeRow) -> FailedPrecondition:
    """Somebody has it, and one of the two wants it alone."""
    return FailedPrecondition(
        f"The volume {volume.name} is in use elsewhere: it is mounted exclusively there, or was to be here.",
        resolution="`sysproc volume inspect` shows where it is mounted. Unmount it there first.",
        reason="VOLUME_IN_USE",
        metadata={"volume": volume.name},
    )


def not_direct(volume: VolumeRow) -> FailedPrecondition:
    """Direct I/O is a matter of the device, which all mounts of a filesystem share; and not every disk can do it."""
    return FailedPrecondition(
        f"The volume {volume.name} cannot be mounted with direct I/O.",
        details="It is mounted without elsewhere, or the host's disk or filesystem below it cannot do it.",
        resolution="Unmount it elsewhere first, or leave direct I/O out.",
        reason="NO_DIRECT_IO",
        metadata={"volume": volume.name},
    )


@contextmanager
def unmounting(point: bytes) -> Iterator[None]:
    """The same of the other job."""
    try:
        yield
    except ChildFailed as failure:
        raise unmount_failed(point, failure) from failure


def unmount_failed(path: bytes, failure: ChildFailed) -> FailedPrecondition | NotFound | Unavailable:
    """It was gone, its container has ended, or the kernel does not do it."""
    if failure.errno in (errno.EINVAL, errno.ENOENT):
        return not_mounted(path)
    if failure.errno == errno.ESRCH:
        return ended()
    return Unavailable(
        f"The volume at {os.fsdecode(path)} was not unmounted.",
        details=f"{failure}.",
        resolution="Try again; with `force` it goes in any case.",
        reason="UNMOUNT_FAILED",
    )


def ended() -> FailedPrecondition:
    """There is nowhere to mount it."""
    return FailedPrecondition(
        "The container has just ended.",
        resolution="Start it again.",
        reason="CONTAINER_ENDED",
    )


def no_filesystem(volume: VolumeRow, label: str) -> NotFound:
    """The volume has no filesystem of this label, or several."""
    labels = ", ".join(one.label for one in volume.filesystems)
    what = f"has no filesystem {label}" if label else "has several filesystems"
    return NotFound(
        f"The volume {volume.name} {what}: {labels}.",
        resolution="Name one of these: `VOLUME:LABEL`.",
        reason="FILESYSTEM_NOT_FOUND",
        metadata={"volume": volume.name, "labels": labels},
    )


def too_many_mounts(most: int) -> ResourceExhausted:
    """The container has enough of them."""
    return ResourceExhausted(
        f"There are {most} volumes mounted in this container already.",
        resolution="Unmount some of them.",
        reason="TOO_MANY_MOUNTS",
        metadata={"most": str(most)},
    )


def not_mounted(path: bytes) -> NotFound:
    """Nothing of ours is there."""
    return NotFound(
        f"No volume is mounted at {os.fsdecode(path)}.",
        resolution="`sysproc volume inspect` shows where a volume is mounted.",
        reason="NOT_MOUNTED",
        metadata={"path": os.fsdecode(path)},
    )


def lingers(users: Sequence[str] = ()) -> FailedPrecondition:
    """It is mounted nowhere, and yet in use. users: by whom, as far as that is known."""
    whom = "; ".join(users[:10]) or "a file that a process has open, or sends, since it was there"
    return FailedPrecondition(
        f"The volume is unmounted, but something still holds it: {whom}.",
        resolution="End that process, or stop the container.",
        reason="VOLUME_LINGERS",
        metadata={"users": "\n".join(users[:100])},
    )


def busy(path: bytes, users: Sequence[str]) -> FailedPrecondition:
    """Somebody uses it."""
    return FailedPrecondition(
        f"The volume at {os.fsdecode(path)} is in use: {'; '.join(users[:10]) or 'by what has ended meanwhile'}.",
        resolution="End that first; `force` ends it.",
        reason="MOUNT_BUSY",
        metadata={"users": "\n".join(users[:100])},
    )
