"""The loop device of a filesystem in a file: one at most, shared by all its mounts, gone with the last of them.

    lock the part ──got it──▶ LOOP_CONFIGURE (autoclear): the device holds the file description, and so the lock
         └────── taken ──────▶ another has configured it: look for the device, open it, look again

Two devices for one filesystem would be two caches of it, and its end. The lock is the kernel's (F_OFD_SETLK on the
part's bytes): it needs no record, outlives daemon and launcher, and ends with the device. Whoever hands out the part
as raw blocks has to take the same lock.

Who wants it alone takes a second lock with it, of one byte beyond the end of any file (`MARKS_AT`): it is the device's
as well, so that nobody else gets the device as long as it is there.
"""

import errno
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sysproc.linux.files import f_ofd_getlk, f_ofd_setlk
from sysproc.linux.loop import (
    LO_FLAGS_AUTOCLEAR,
    LO_FLAGS_DIRECT_IO,
    LO_FLAGS_READ_ONLY,
    LoopInfo64,
    loop_configure,
    loop_get_status64,
    loops_backed_by,
)

_LOCKED = (errno.EAGAIN, errno.EACCES)
# Between the lock and LOOP_CONFIGURE of another, or between the end of its mount and the end of its device.
PATIENCE_S = 5.0
# Where a part that somebody has alone is marked: as many bytes further on as it begins in the file.
MARKS_AT = 1 << 61
_PAUSE_S = 0.005


@dataclass(frozen=True)
class Use:
    """How the device is wanted. exclusive: by nobody else; direct_io: past the host's page cache.

    read_only: nothing is written through it, not even by a filesystem that notes where it was mounted.
    """

    exclusive: bool = False
    direct_io: bool = False
    read_only: bool = False


SHARED = Use()


@contextmanager
def device_of(
    file: Path, offset: int, size: int, *, use: Use = SHARED, block_size: int = 0, name: str = ""
) -> Iterator[str]:
    """The path of the device, which is there as long as the block lasts or something has it mounted.

    block_size, name: of one over a device that is decrypted.

    OSError(EBUSY): the part is locked, and no loop device is what has it. EUSERS: somebody else has the device, and one
    of the two wants it alone. EOPNOTSUPP: it is not past the page cache. Blocks.
    """
    flags = LO_FLAGS_AUTOCLEAR | (LO_FLAGS_DIRECT_IO if block_size or use.direct_io else 0)
    flags |= LO_FLAGS_READ_ONLY if use.read_only else 0
    made = {"offset": offset, "size": size, "flags": flags, "block_size": block_size, "name": name}
    device_fd, path = _open(file, made, use)
    try:
        if use.direct_io and not loop_get_status64(device_fd).lo_flags & LO_FLAGS_DIRECT_IO:
            raise OSError(errno.EOPNOTSUPP, "goes through the page cache", path)
        yield path
    finally:
        os.close(device_fd)


@contextmanager
def device_in_use(file: Path, offset: int, size: int, *, block_size: int = 0, name: str = "") -> Iterator[str]:
    """The same, whoever has it alone: for what the service itself does with it."""
    found = _found(file, offset)
    if found is None:
        with device_of(file, offset, size, block_size=block_size, name=name) as path:
            yield path
        return
    device_fd, path = found
    try:
        yield path
    finally:
        os.close(device_fd)


def is_exclusive(file: Path, offset: int) -> bool:
    """Whether somebody has the part that begins there alone."""
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return f_ofd_getlk(fd, MARKS_AT + offset, 1)
    finally:
        os.close(fd)


def _open(file: Path, made: Mapping[str, Any], use: Use) -> tuple[int, str]:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        if (found := _made(file, made, use) or _shared(file, made["offset"], use)) is not None:
            return found
        if time.monotonic() > deadline:
            # The name alone: the caller may be a container, which is not told where the service has its files.
            raise OSError(errno.EBUSY, "in use, and by no loop device", file.name)
        time.sleep(_PAUSE_S)


def _made(file: Path, made: Mapping[str, Any], use: Use) -> tuple[int, str] | None:
    """A new device, if nobody has the part. Its own file description: the lock is to be the device's alone."""
    fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        f_ofd_setlk(fd, made["offset"], made["size"])
        if use.exclusive:
            f_ofd_setlk(fd, MARKS_AT + made["offset"], 1)
        return loop_configure(fd, **made)
    except OSError as failure:
        if failure.errno not in _LOCKED:
            raise
        return None
    finally:
        os.close(fd)


def _shared(file: Path, offset: int, use: Use) -> tuple[int, str] | None:
    """The same, unless it is not to be shared."""
    found = _found(file, offset)
    if found is not None and (use.exclusive or is_exclusive(file, offset)):
        device_fd, path = found
        os.close(device_fd)
        raise OSError(errno.EUSERS, "somebody else has it", path)
    return found


def _found(file: Path, offset: int) -> tuple[int, str] | None:
    """The device that another has made. It is opened before it is looked at: so it stays what it is."""
    wanted = os.stat(file)
    for path in loops_backed_by(file):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if _is_of(fd, wanted, offset):
            return fd, path
        os.close(fd)
    return None


def _is_of(device_fd: int, wanted: os.stat_result, offset: int) -> bool:
    try:
        info: LoopInfo64 = loop_get_status64(device_fd)
    except OSError as failure:
        if failure.errno != errno.ENXIO:
            raise
        return False
    return (info.lo_inode, info.lo_device, info.lo_offset) == (wanted.st_ino, wanted.st_dev, offset)
