"""Capabilities of a process (capabilities(7)): asking for one, giving them up for good.

Those of containers are their user namespace's, and nothing is done about them here.
"""

import errno
import struct
from pathlib import Path

from sysproc.linux.libc import address, buffer, number_of, syscall
from sysproc.linux.prctl import PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, prctl

CAP_IPC_LOCK, CAP_SYS_RESOURCE = 14, 24
_VERSION_3 = 0x20080522
_MOST = 64
# struct __user_cap_data_struct, twice: effective, permitted, inheritable of 32 capabilities each.
_DATA = struct.Struct("<IIIIII")


def is_capable(capability: int) -> bool:
    """Whether this thread has it in its effective set (proc(5))."""
    lines = Path("/proc/thread-self/status").read_text().splitlines()
    effective = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    return bool(effective >> capability & 1)


def keep_only_capability(kept: int) -> None:
    """No set has another one left, and no execve gives one back (no_new_privs).

    Of this thread, and of all that it starts afterwards.
    """
    for number in range(_MOST):
        try:
            prctl(PR_CAPBSET_DROP, number)
        except OSError as failure:
            if failure.errno != errno.EINVAL:  # beyond the last one that the kernel knows
                raise
            break
    low, high = (1 << kept) & 0xFFFF_FFFF, (1 << kept) >> 32
    header, data = buffer(struct.pack("<Ii", _VERSION_3, 0)), buffer(_DATA.pack(low, low, 0, high, high, 0))
    syscall("capset", number_of("capset"), address(header), address(data))
    prctl(PR_SET_NO_NEW_PRIVS, 1)
