"""Copies of sparse files: blocks shared where the host's filesystem can, else the data and not the holes.

Used on both sides: by the daemon for what is at rest, by jobs for what is frozen. Files that get a name when they are
whole are in `sysproc.storage.vsf.clone`.
"""

import errno
import os
from collections.abc import Iterator

from sysproc.linux.files import ficlone

_NO_REFLINK = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS)
_COPY_BYTES = 1 << 30
# What is all zeros, of this size, is left a hole.
_BLOCK_BYTES = 1 << 16
_ZEROS = memoryview(bytes(_BLOCK_BYTES))


def copy_sparse(source_fd: int, target_fd: int) -> None:
    """All bytes, sharing them where the host's filesystem can (FICLONE), else only the data and not the holes."""
    try:
        ficlone(target_fd, source_fd)
    except OSError as failure:
        if failure.errno not in _NO_REFLINK:
            raise
        os.ftruncate(target_fd, os.fstat(source_fd).st_size)
        copy_data(source_fd, target_fd)


def copy_data(source_fd: int, target_fd: int, offset: int = 0) -> None:
    """Only the data and not the holes, to this place of the target, which has holes there and is large enough."""
    for start, end in data_extents(source_fd, os.fstat(source_fd).st_size):
        at = start
        while at < end:
            at += os.copy_file_range(source_fd, target_fd, min(end - at, _COPY_BYTES), at, offset + at)


def data_extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a sparse file has data (lseek(2), SEEK_DATA and SEEK_HOLE)."""
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as failure:
            if failure.errno != errno.ENXIO:
                raise
            return
        at = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, at


def write_sparse(fd: int, data: memoryview, offset: int) -> None:
    """Write into a place of a file that is a hole, and leave it one where there are zeros only."""
    for at in range(0, len(data), _BLOCK_BYTES):
        block = data[at : at + _BLOCK_BYTES]
        if block == _ZEROS[: len(block)]:
            continue
        done = 0
        while done < len(block):
            done += os.pwrite(fd, block[done:], offset + at + done)
