"""The filesystem in a copy of a volume, shrunk, as far as its type can be: ext4 by resize2fs, btrfs by the kernel.

    job: loop device -> mounted, seen by nobody (its journal is replayed) -> shrunk │ {"least": so many bytes it needs}

That it is a copy, and what becomes of it, is in `sysproc.volume_resize`.
"""

import errno
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sysproc.failpoints import failpoint
from sysproc.isolation.builder import enter_own_mount_namespace
from sysproc.isolation.mkfs import EXT4_BLOCK
from sysproc.isolation.tools import run_tool
from sysproc.linux.files import syncfs
from sysproc.linux.loop import LO_FLAGS_AUTOCLEAR, loop_configure
from sysproc.linux.mounts import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, new_mount
from sysproc.linux.resize import btrfs_resize

Values = Mapping[str, Any]

_FLAGS = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC
_ESTIMATE = re.compile(r"minimum size of the filesystem: (\d+)")
# The kernel refuses less, whatever is in it (fs/btrfs/ioctl.c).
_LEAST_BTRFS = 256 << 20


def shrink(values: Values, fds: Sequence[int], _: socket.socket) -> Mapping[str, Any]:
    """The job; fds: the file. values: type, offset, size of the part, and what it shall be: `to`."""
    flags = LO_FLAGS_AUTOCLEAR
    device_fd, device = loop_configure(fds[0], offset=values["offset"], size=values["size"], flags=flags)
    try:
        failpoint("volumes.shrink.after_loop")
        least = SHRINK[values["type"]](device, values["to"])
        os.fsync(device_fd)
    finally:
        os.close(device_fd)
    return {"least": least}


def shrink_ext4(device: str, size: int) -> int:
    """What it needs at least, if that is more; 0: done. resize2fs knows no journal, and wants it empty."""
    enter_own_mount_namespace()
    with mounted("ext4", device) as top:
        syncfs(top)
    found = _ESTIMATE.search(run_tool("resize2fs", "-P", device))
    if found is None:
        raise OSError(errno.EIO, "says no least size", "resize2fs -P")
    least = int(found[1]) * EXT4_BLOCK
    if least > size:
        return least
    run_tool("resize2fs", "-f", device, f"{size >> 10}K")
    return 0


def shrink_btrfs(device: str, size: int) -> int:
    """The same, by moving what is beyond."""
    enter_own_mount_namespace()
    with mounted("btrfs", device) as top:
        room = os.fstatvfs(top)
        used = (room.f_blocks - room.f_bfree) * room.f_frsize
        if size < _LEAST_BTRFS:
            return max(used, _LEAST_BTRFS)
        try:
            btrfs_resize(top, str(size))
        except OSError as failure:
            if failure.errno != errno.ENOSPC:
                raise
            return max(used, size + 1)
        syncfs(top)
    return 0


SHRINK: dict[str, Callable[[str, int], int]] = {"ext4": shrink_ext4, "btrfs": shrink_btrfs}


@contextmanager
def mounted(fstype: str, device: str) -> Iterator[int]:
    """Its top directory, while it is mounted where nobody sees it."""
    mount = new_mount(fstype, {"source": device}, _FLAGS)
    try:
        top = os.open(f"/proc/self/fd/{mount}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield top
        finally:
            os.close(top)
    finally:
        os.close(mount)
