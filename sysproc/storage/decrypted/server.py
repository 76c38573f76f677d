"""A FUSE filesystem of one file, the decrypted data: the kernel's requests, answered by a few threads.

A write is answered when the host's page cache has it, an fsync when the disk has it; so the death of this process
loses nothing that was answered. Holes are refused: a loop device cannot tell a discard, after which anything may be
read, from zeros, and which sectors are in use would be seen in the encrypted file. What is kept is nothing.
"""

import errno
import mmap
import os
import stat
import struct
import sys
import threading
from collections.abc import Callable, Sequence

from sysproc.linux import fuse
from sysproc.storage.decrypted.sectors import DecryptedSectors
from sysproc.storage.luks.region import Region

MODE = stat.S_IFREG | 0o600
MAX_WRITE = 1 << 20
THREADS = 4
_STACK_BYTES = 256 << 10
_MAX_BACKGROUND, _CONGESTED = 64, 48
_FOREVER_S = 1 << 30
_HEAD_BYTES = fuse.IN_HEADER.size + fuse.WRITE_IN.size
# Nobody waits for an answer to these.
_UNANSWERED = (fuse.FORGET, fuse.BATCH_FORGET, fuse.INTERRUPT)

Answer = Sequence[bytes | memoryview]


def private_pages(size: int) -> mmap.mmap:
    """Whole pages, of this process alone."""
    return mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


class _Worker:
    """One thread: its buffers, the request that it is at."""

    def __init__(self, device_fd: int, sectors: DecryptedSectors) -> None:
        self._device_fd, self._sectors = device_fd, sectors
        self._head = bytearray(_HEAD_BYTES)
        self._data = memoryview(private_pages(MAX_WRITE + 2 * sectors.sector_size))
        self._answers: dict[int, Callable[[], Answer]] = {
            fuse.INIT: self._init,
            fuse.GETATTR: self._getattr,
            fuse.OPEN: lambda: [fuse.OPEN_OUT.pack(0, fuse.FOPEN_DIRECT_IO)],
            fuse.READ: self._read,
            fuse.WRITE: self._write,
            fuse.FSYNC: self._sync,
            fuse.FLUSH: list,
            fuse.RELEASE: list,
            fuse.STATFS: self._statfs,
            fuse.DESTROY: list,
        }

    def run(self) -> None:
        """Answer until the filesystem is gone."""
        while self._next():
            _, opcode, unique, *_ = fuse.IN_HEADER.unpack_from(self._head)
            if opcode not in _UNANSWERED:
                self._reply(unique, *self._outcome(opcode))

    def _next(self) -> bool:
        """Read a request; False when there will be none any more."""
        while True:
            try:
                return os.readv(self._device_fd, [self._head, self._data]) > 0
            except OSError as failure:
                if failure.errno == errno.ENODEV:
                    return False
                # ENOENT: the request was taken back before it was read.
                if failure.errno not in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                    raise

    def _outcome(self, opcode: int) -> tuple[int, Answer]:
        """errno and answer. What is not known gets ENOSYS, and the kernel asks for most of it once only."""
        answer = self._answers.get(opcode)
        if answer is None:
            return errno.EOPNOTSUPP if opcode in (fuse.FALLOCATE, fuse.SETATTR) else errno.ENOSYS, []
        try:
            return 0, answer()
        except OSError as failure:
            return failure.errno or errno.EIO, []
        except MemoryError:
            return errno.ENOMEM, []

    def _reply(self, unique: int, number: int, answer: Answer) -> None:
        length = fuse.OUT_HEADER.size + sum(map(len, answer))
        try:
            os.writev(self._device_fd, [fuse.OUT_HEADER.pack(length, -number, unique), *answer])
        except OSError as failure:
            # Who asked has been killed meanwhile, or the filesystem is gone.
            if failure.errno not in (errno.ENOENT, errno.ENODEV):
                raise

    def _argument(self, structure: struct.Struct) -> tuple[int, ...]:
        return structure.unpack_from(self._head, fuse.IN_HEADER.size)

    def _init(self) -> Answer:
        major, minor, readahead, offered = self._argument(fuse.INIT_IN)
        if major != fuse.MAJOR or minor < fuse.MINOR:
            raise OSError(errno.EPROTO, os.strerror(errno.EPROTO))
        wanted = fuse.FUSE_ASYNC_READ | fuse.FUSE_BIG_WRITES | fuse.FUSE_ASYNC_DIO | fuse.FUSE_MAX_PAGES
        pages = MAX_WRITE // mmap.PAGESIZE
        limits = (_MAX_BACKGROUND, _CONGESTED, MAX_WRITE, 1, pages)
        return [fuse.INIT_OUT.pack(fuse.MAJOR, fuse.MINOR, readahead, offered & wanted, *limits)]

    def _getattr(self) -> Answer:
        size, owner = self._sectors.size, (os.geteuid(), os.getegid())
        kind = (MODE, 1, *owner, 0, self._sectors.sector_size)
        return [fuse.ATTR_OUT.pack(_FOREVER_S, 0, fuse.ROOT_ID, size, size // 512, *kind)]

    def _statfs(self) -> Answer:
        unit = self._sectors.sector_size
        return [fuse.STATFS_OUT.pack(self._sectors.size // unit, 0, 0, 1, 0, unit, 255, unit)]

    def _read(self) -> Answer:
        _, offset, size = self._argument(fuse.READ_IN)
        return [self._sectors.read_into(self._data, offset, min(size, MAX_WRITE))]

    def _write(self) -> Answer:
        _, offset, size = self._argument(fuse.WRITE_IN)
        self._sectors.write(self._data[:size], offset)
        return [fuse.WRITE_OUT.pack(size)]

    def _sync(self) -> Answer:
        self._sectors.sync()
        return []


def _fail_at_once(broken: threading.ExceptHookArgs) -> None:
    """A thread that ended by a fault of ours has left a request unanswered: the kernel would wait for it for ever."""
    sys.__excepthook__(broken.exc_type, broken.exc_value or broken.exc_type(), broken.exc_traceback)
    os._exit(1)


class Serving:
    """The threads of one open volume."""

    def __init__(self, device_fd: int, sectors: DecryptedSectors) -> None:
        self._device_fd, self._sectors = device_fd, sectors
        threading.excepthook = _fail_at_once
        threading.stack_size(_STACK_BYTES)
        workers = [_Worker(device_fd, sectors) for _ in range(THREADS)]
        self._threads = [threading.Thread(target=worker.run, daemon=True) for worker in workers]
        for thread in self._threads:
            thread.start()

    def widen(self, region: Region) -> None:
        """Let the file be as large as what is in the area by now. OSError: the kernel was not told."""
        self._sectors.widen(region)
        fuse.notify_size(self._device_fd, self._sectors.size)

    def wait(self) -> None:
        """Until the filesystem is gone."""
        for thread in self._threads:
            thread.join()
