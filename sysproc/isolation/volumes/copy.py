"""A volume's file, copied as it is at one moment; and what only the kernel, or a tool, can do with the copy.

    copy_volume   frozen: the bytes of the file -> target; thawed; on the disk
    replay        mounts a filesystem of the copy once, where nobody sees it: what its log has is in its place then
    renew_xfs     the same, and another UUID by xfs_db, which writes an empty log that fits

A filesystem that was frozen has little to be replayed; one whose host has lost its power may have much. Superblocks of
the other types are changed by the daemon (`sysproc.volume_copy_files`); which volumes are copied is decided above that.
"""

import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sysproc.failpoints import failpoint
from sysproc.isolation.builder import enter_own_mount_namespace
from sysproc.isolation.tools import run_tool
from sysproc.isolation.volumes.freeze import Places, frozen
from sysproc.linux.files import syncfs
from sysproc.linux.loop import LO_FLAGS_AUTOCLEAR, loop_configure
from sysproc.linux.mounts import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, new_mount
from sysproc.sparse import copy_sparse

Values = Mapping[str, Any]


def copy_volume(values: Values, fds: Sequence[int], _: socket.socket) -> Mapping[str, Any]:
    """The job: of a `file`, as `Places` reads it, into an empty one, the fd. The moment is that of the clock."""
    (target,) = fds
    enter_own_mount_namespace()
    source = os.open(values["file"], os.O_RDONLY | os.O_CLOEXEC)
    try:
        with frozen(Places.read(values)):
            moment = time.time()
            copy_sparse(source, target)
            failpoint("volumes.copy.before_thaw")
    finally:
        os.close(source)
    os.fdatasync(target)
    return {"moment": moment}


def replay(values: Values, fds: Sequence[int], _: socket.socket) -> Mapping[str, Any]:
    """The job: the filesystem of this `type` at `offset`, `size` bytes long, of a file that nobody else has."""
    enter_own_mount_namespace()
    with device_of_part(fds[0], values) as device:
        mount_once(values["type"], {"source": device})
    return {}


def renew_xfs(values: Values, fds: Sequence[int], _: socket.socket) -> Mapping[str, Any]:
    """The job: as `replay`, and then it gets this `uuid`; xfs_db does nothing where the log is not empty."""
    enter_own_mount_namespace()
    with device_of_part(fds[0], values) as device:
        mount_once("xfs", {"source": device, "nouuid": None})
        run_tool("xfs_db", "-x", "-c", f"uuid {values['uuid']}", device)
    return {}


@contextmanager
def device_of_part(fd: int, values: Values) -> Iterator[str]:
    """A loop device on a part of our copy; what was written to it is in the file afterwards."""
    device_fd, device = loop_configure(fd, offset=values["offset"], size=values["size"], flags=LO_FLAGS_AUTOCLEAR)
    try:
        yield device
        os.fsync(device_fd)
    finally:
        os.close(device_fd)


def mount_once(kind: str, options: Mapping[str, str | None]) -> None:
    """Mount it and let go of it again."""
    mounted = new_mount(kind, options, MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)
    try:
        top = os.open(f"/proc/self/fd/{mounted}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syncfs(top)
        finally:
            os.close(top)
    finally:
        os.close(mounted)
