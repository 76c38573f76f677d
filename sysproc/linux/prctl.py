"""prctl(2), by its own names, and the few calls on credentials that Python lacks.

Capabilities and keyrings have modules of their own beside this one.
"""

import ctypes

from sysproc.linux.libc import check

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_SECUREBITS, PR_SET_CHILD_SUBREAPER = 1, 4, 15, 28, 36
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_IO_FLUSHER = 24, 38, 57
SECBIT_NO_SETUID_FIXUP = 1 << 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]


def prctl(option: int, argument: int) -> int:
    """prctl(2) with one number as argument."""
    return check(_libc.prctl(option, argument, 0, 0, 0), "prctl", option)


def set_pdeathsig(number: int) -> None:
    """PR_SET_PDEATHSIG: the signal that the kernel sends when the parent ends; 0: none. Cleared by a change of ids."""
    prctl(PR_SET_PDEATHSIG, number)


def set_dumpable(dumpable: bool) -> None:
    """PR_SET_DUMPABLE: without it nobody below CAP_SYS_PTRACE traces this process or opens its /proc files."""
    prctl(PR_SET_DUMPABLE, int(dumpable))


def set_child_subreaper() -> None:
    """PR_SET_CHILD_SUBREAPER, Linux 3.4: orphans below this process become its children."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def set_securebits(bits: int) -> None:
    """PR_SET_SECUREBITS (capabilities(7)); with SECBIT_NO_SETUID_FIXUP a change of uid keeps the capabilities."""
    prctl(PR_SET_SECUREBITS, bits)


def set_name(name: str) -> None:
    """PR_SET_NAME: what ps(1) shows of this thread; 15 bytes."""
    raw = name.encode()[:15] + b"\0"
    text = ctypes.create_string_buffer(raw)
    check(_libc.prctl(PR_SET_NAME, ctypes.addressof(text), 0, 0, 0), "prctl", name)


def set_io_flusher() -> None:
    """PR_SET_IO_FLUSHER, Linux 5.6: allocations wait for no disk that waits for us. EPERM: no CAP_SYS_RESOURCE."""
    prctl(PR_SET_IO_FLUSHER, 1)
