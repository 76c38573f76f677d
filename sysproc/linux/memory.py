"""Memory that holds keys: mlock(2), mlockall(2), madvise(2), and a buffer that is wiped when it is closed.

What Python itself copies (a `bytes`, an `int` made of a key) cannot be wiped: keys are kept in these buffers from the
read on and handed on as memoryviews, and mlockall keeps what is copied all the same from ever being swapped out.
"""

import ctypes
import errno
import hmac
import mmap
import os
from types import TracebackType
from typing import Self

from sysproc.linux.libc import check

MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4
_ERRNOS_OF_NO_LOCK = (errno.EPERM, errno.ENOMEM, errno.EAGAIN)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mlockall.argtypes = [ctypes.c_int]


def mlockall(flags: int) -> None:
    """mlockall(2); MCL_ONFAULT (Linux 4.4) locks pages as they are first used. EPERM, ENOMEM: RLIMIT_MEMLOCK."""
    check(_libc.mlockall(flags), "mlockall", flags)


def wipe(data: bytes) -> None:
    """Overwrite a bytes object that nobody else has, as CPython keeps it: what came in a message, once it was copied.

    Not what the interpreter shares with everybody: the empty one, and those of one byte.
    """
    if len(data) > 1:
        ctypes.memset(id(data) + bytes.__basicsize__ - 1, 0, len(data))


class SecretBuffer:
    """A few bytes in pages of their own: locked, in no core dump, in no forked child, wiped when closed.

    Where RLIMIT_MEMLOCK forbids the lock, `locked` is False, and whoever must have it refuses.
    """

    def __init__(self, size: int) -> None:
        self._map = mmap.mmap(-1, max(size, 1), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._map.madvise(mmap.MADV_DONTDUMP)
        self._map.madvise(mmap.MADV_DONTFORK)
        self._memory = (ctypes.c_char * len(self._map)).from_buffer(self._map)
        self.locked = self._lock()
        self._view = memoryview(self._map)[:size]

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Self:
        """A copy of what is somewhere else already."""
        buffer = cls(len(data))
        buffer.view[:] = data
        return buffer

    @classmethod
    def random(cls, size: int) -> Self:
        """A fresh key, from the kernel into this memory and nowhere else (random(4))."""
        buffer, fd = cls(size), os.open("/dev/urandom", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if os.readv(fd, [buffer.view]) != size:
                raise OSError(errno.EIO, "fewer random bytes than asked for", "/dev/urandom")
        finally:
            os.close(fd)
        return buffer

    @classmethod
    def read_all(cls, fd: int, limit: int) -> Self:
        """What a pipe or file holds up to its end, never in any other memory. OSError(EFBIG) beyond the limit."""
        with cls(limit + 1) as whole:
            filled = 0
            while filled <= limit and (count := os.readv(fd, [whole.view[filled:]])):
                filled += count
            if filled > limit:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), f"more than {limit} bytes")
            return cls.of(whole.view[:filled])

    def _lock(self) -> bool:
        try:
            check(_libc.mlock(ctypes.addressof(self._memory), len(self._map)), "mlock", len(self._map))
        except OSError as failure:
            if failure.errno not in _ERRNOS_OF_NO_LOCK:
                raise
            return False
        return True

    @property
    def view(self) -> memoryview:
        """The bytes. Parts of it must be let go of before the buffer is closed."""
        return self._view

    def __len__(self) -> int:
        return len(self._view)

    def __eq__(self, other: object) -> bool:
        """By what is in them, in a time that does not depend on it."""
        return isinstance(other, SecretBuffer) and hmac.compare_digest(self._view, other._view)

    __hash__ = None  # type: ignore[assignment]  # what is in it changes

    def __repr__(self) -> str:
        return "SecretBuffer(***)"

    def close(self) -> None:
        """Wipe. The pages are given back once nobody has a view of them any more."""
        ctypes.memset(ctypes.addressof(self._memory), 0, ctypes.sizeof(self._memory))

    def __del__(self) -> None:
        """Where nobody has closed it: a request that was refused, for instance."""
        if hasattr(self, "_memory"):
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()
