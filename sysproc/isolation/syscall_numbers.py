"""The numbers of the system calls that seccomp profiles name, by architecture.

Source: <asm/unistd_64.h>, <asm/unistd_32.h> and <asm-generic/unistd.h> (aarch64) of linux-libc-dev 6.1; a test
compares them where those headers are installed. What is done about each is in
`sysproc.isolation.seccomp_profiles`; numbers that our own calls need are in `sysproc.linux.libc`.
"""

from dataclasses import dataclass

# The last one of Linux 6.17 (file_setattr): later ones have not been looked at for these profiles.
LAST_REVIEWED = 469
# On x86_64 a number with this bit is one of the x32 ABI.
X32_SYSCALL_BIT = 0x40000000


@dataclass(frozen=True)
class Architecture:
    """A system call ABI. audit: AUDIT_ARCH_* of linux/audit.h, as seccomp sees it."""

    name: str
    audit: int
    column: int


X86_64 = Architecture("x86_64", 0xC000003E, 0)
I386 = Architecture("i386", 0x40000003, 1)
AARCH64 = Architecture("aarch64", 0xC00000B7, 2)

#   name: (x86_64, i386, aarch64); None: there is none
_NUMBERS: dict[str, tuple[int | None, int | None, int | None]] = {
    "acct": (163, 51, 89),
    "add_key": (248, 286, 217),
    "bpf": (321, 357, 280),
    "clock_settime": (227, 264, 112),
    "clock_settime64": (None, 404, None),
    "clone": (56, 120, 220),
    "clone3": (435, 435, 435),
    "delete_module": (176, 129, 106),
    "finit_module": (313, 350, 273),
    "init_module": (175, 128, 105),
    "io_uring_enter": (426, 426, 426),
    "io_uring_register": (427, 427, 427),
    "io_uring_setup": (425, 425, 425),
    "ioctl": (16, 54, 29),
    "ioperm": (173, 101, None),
    "iopl": (172, 110, None),
    "kexec_file_load": (320, None, 294),
    "kexec_load": (246, 283, 104),
    "keyctl": (250, 288, 219),
    "lookup_dcookie": (212, 253, 18),
    "modify_ldt": (154, 123, None),
    "open_by_handle_at": (304, 342, 265),
    "perf_event_open": (298, 336, 241),
    "personality": (135, 136, 92),
    "quotactl": (179, 131, 60),
    "quotactl_fd": (443, 443, 443),
    "request_key": (249, 287, 218),
    "setsockopt": (54, 366, 208),
    "settimeofday": (164, 79, 170),
    "socket": (41, 359, 198),
    "socketcall": (None, 102, None),
    "socketpair": (53, 360, 199),
    "stime": (None, 25, None),
    "swapoff": (168, 115, 225),
    "swapon": (167, 87, 224),
    "syslog": (103, 103, 116),
    "unshare": (272, 310, 97),
    "userfaultfd": (323, 374, 282),
    "uselib": (134, 86, None),
}


def names() -> frozenset[str]:
    """All system calls of the table."""
    return frozenset(_NUMBERS)


def number_on(name: str, architecture: Architecture) -> int | None:
    """The number of a system call; None if this architecture has no such call. KeyError: not in the table."""
    return _NUMBERS[name][architecture.column]
