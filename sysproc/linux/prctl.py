"""prctl(2), by its own names, and the few calls on credentials that Python lacks.

Capabilities and keyrings have modules of their own beside this one.
"""

import ctypes

from sysproc.linux.libc import check

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_SECUREBITS, PR_SET_CHILD_SUBREAPER = 1, 4, 15, 28, 36
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
