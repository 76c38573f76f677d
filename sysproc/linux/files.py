"""Files: openat2(2), holes, reflinks, locks of parts, leases.

What Python's os module has already is used from there.
"""

import ctypes
import errno
import fcntl
import os
import signal
import struct
from contextlib import suppress

from sysproc.linux.libc import NR_OPENAT2, Pathish, check, encode, syscall

RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT = 1, 2, 4, 8, 16
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2
FICLONE = 0x40049409

# openat2(2) says EAGAIN where anything is renamed or mounted, by anybody, while it walks over a `..` in a bounded root.
_WALKS = 32

# struct flock of fcntl(2): type, whence, start, length, pid.
_FLOCK = struct.Struct("hhqqi4x")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]


class OpenHow(ctypes.Structure):
    """struct open_how of linux/openat2.h."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def openat2(dirfd: int, path: Pathish, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2), Linux 5.6; always close-on-exec. EAGAIN: what is on the way was moved each time it was walked."""
    how, raw = OpenHow(flags | os.O_CLOEXEC, mode, resolve), encode(path)
    arguments = (dirfd, raw, ctypes.byref(how), ctypes.sizeof(how))
    for _ in range(_WALKS - 1):
        with suppress(BlockingIOError):
            return syscall("openat2", NR_OPENAT2, *arguments, target=os.fsdecode(raw))
    return syscall("openat2", NR_OPENAT2, *arguments, target=os.fsdecode(raw))


def punch_hole(fd: int, offset: int, length: int) -> None:
    """fallocate(2) with FALLOC_FL_PUNCH_HOLE: the bytes read as zeros and occupy no disk; the size stays."""
    check(_libc.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length), "fallocate", fd)


def f_ofd_setlk(fd: int, offset: int, length: int, *, shared: bool = False) -> None:
    """F_OFD_SETLK (Linux 3.15): lock these bytes for the open file description. EAGAIN: another one has them.

    F_WRLCK, of which there is one, or F_RDLCK (shared), of which there are several: for a file open for reading.

    The lock lasts as long as the description: one that a loop device holds, as long as the device is configured.
    """
    kind = fcntl.F_RDLCK if shared else fcntl.F_WRLCK
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, offset, length, 0))


def f_ofd_getlk(fd: int, offset: int, length: int) -> bool:
    """F_OFD_GETLK (Linux 3.15): whether another open file description has locked any of these bytes."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, offset, length, 0)
    kind: int = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))[0]
    return kind != fcntl.F_UNLCK


def ficlone(target_fd: int, source_fd: int) -> None:
    """FICLONE (ioctl_ficlone(2)): share all blocks. EOPNOTSUPP, EXDEV, EINVAL, ENOTTY: it can't be done here."""
    fcntl.ioctl(target_fd, FICLONE, source_fd)


def syncfs(fd: int) -> None:
    """syncfs(2): write back the whole filesystem that the fd is on. EIO, ENOSPC: some of it was lost (Linux 5.8)."""
    check(_libc.syncfs(fd), "syncfs", fd)


def is_open_elsewhere(fd: int) -> bool:
    """Whether anybody else, loop devices included, has this file open: then there is no lease to be had.

    fcntl(2), F_SETLEASE. The lease is given back at once; who opens the file just then is waited for by the kernel,
    and the signal that would tell of it is one that does nothing.
    """
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as failure:
        if failure.errno != errno.EAGAIN:
            raise
        return True
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
