"""The C program as a file in memory that nobody can change: what runs of it in a container is no file of the host's.

Each container has a copy of its own: one inode for all would be a channel between them, since seals keep contents only
(locks, inotify and extended attributes go by the inode, which everybody inside reaches as /proc/1/exe).
What the program does is in `sysproc.isolation.native`.
"""

import fcntl
import os

_MFD_FLAGS = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
_F_ADD_SEALS, _ALL_SEALS = 1033, 0xF
_MODE = 0o555


def sealed_copy(program: bytes) -> int:
    """The fd of a copy, to be executed; read-only, since a writable one makes execve(2) say ETXTBSY."""
    memory = os.memfd_create("sysproc-native", _MFD_FLAGS)
    try:
        os.write(memory, program)
        os.fchmod(memory, _MODE)
        fcntl.fcntl(memory, _F_ADD_SEALS, _ALL_SEALS)
        return os.open(f"/proc/self/fd/{memory}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(memory)


def another_copy(program_fd: int) -> int:
    """A copy of a copy."""
    return sealed_copy(os.pread(program_fd, os.fstat(program_fd).st_size, 0))
