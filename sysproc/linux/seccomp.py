"""seccomp(2): loading a filter. What filters contain is in `sysproc.isolation.seccomp_profiles`."""

import ctypes

from sysproc.linux.libc import address, buffer, number_of, syscall

SECCOMP_SET_MODE_FILTER = 1
_INSTRUCTION_BYTES = 8


class SockFprog(ctypes.Structure):
    """struct sock_fprog of linux/filter.h."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def load_filter(program: bytes) -> None:
    """SECCOMP_SET_MODE_FILTER, Linux 3.17: for this process and all it starts. Empty: nothing.

    Needs CAP_SYS_ADMIN in its user namespace (EACCES), since no_new_privs stays off.
    """
    if not program:
        return
    memory = buffer(program)
    fprog = SockFprog(len(program) // _INSTRUCTION_BYTES, address(memory))
    syscall("seccomp", number_of("seccomp"), SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(fprog))
