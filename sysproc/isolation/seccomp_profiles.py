"""What a container's processes may not ask of the kernel: the profiles `default`, `strict` and `open`.

    default   all is allowed but what has no namespace, or reaches around one: the host's kernel (kexec, modules, bpf,
              perf, its log and clock), its disks (swap, quota, accounting, file handles), socket families without
              namespaces, io_uring (whose requests no filter sees), request_key's programs on the host, and to open a
              key to everybody (keys are found by number, in all namespaces)
    strict    for hostile code: moreover no nested user namespaces, keys, userfaultfd, packet filters or packet
              sockets, no terminal input for others, no 32-bit ABI, no call that is newer than our last review
    open      no filter

Refusals are errors, never kills: EPERM mostly, as the kernel itself says it to who is not the host's root; ENOSYS
where libc then takes an older way, or a program is to think that it was not built in. Calls of a 32-bit ABI: on
x86_64 i386 has a table of its own; x32, and 32-bit ARM on aarch64, are ENOSYS. How filters are assembled is in
`sysproc.isolation.seccomp_assembler`; who loads them, `sysproc.isolation.inside`.
"""

import errno
import socket
import termios
from collections.abc import Callable, Mapping
from functools import cache

from sysproc.errors import Unimplemented
from sysproc.isolation.seccomp_assembler import (
    ALLOW,
    ARCH,
    NR,
    Piece,
    if_among,
    if_any_bit,
    if_at_least,
    if_equal,
    load,
    load_argument,
    mask,
    refuse,
    search,
)
from sysproc.isolation.syscall_numbers import (
    AARCH64,
    I386,
    LAST_REVIEWED,
    X32_SYSCALL_BIT,
    X86_64,
    Architecture,
    number_on,
)
from sysproc.linux.namespaces import CLONE_NEWUSER

Rules = Mapping[str, Piece]

FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET)
STRICT_FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)

_EPERM, _ENOSYS = refuse(errno.EPERM), refuse(errno.ENOSYS)
_NO_FAMILY = refuse(errno.EAFNOSUPPORT)

_NETLINK_NETFILTER = 12
_SOL_IP, _SOL_IPV6 = 0, 41
# setsockopt(2): replacing the tables of iptables and ip6tables; of arptables and ebtables (linux/netfilter*.h).
_XT_SET_REPLACE, _ARPT_SET_REPLACE, _EBT_SET_ENTRIES = 64, 96, 128
_SYS_SOCKET, _SYS_SOCKETPAIR = 1, 8  # socketcall(2)
_KEYCTL_SETPERM, _KEY_OTH_ALL = 5, 0x3F  # linux/keyctl.h; the permissions of who is neither owner nor in its group
_PER_LINUX, _PER_LINUX32, _UNAME26, _PER_QUERY = 0x0, 0x8, 0x20000, 0xFFFFFFFF
_PER_MASK = 0xFF

_HOST_ONLY = (
    "acct",
    "bpf",
    "clock_settime",
    "clock_settime64",
    "delete_module",
    "finit_module",
    "init_module",
    # What it asks for later, no filter sees. EPERM is what the kernel says where it is switched off.
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kexec_file_load",
    "kexec_load",
    "lookup_dcookie",
    # Before Linux 6.11 it is EPERM in every user namespace.
    "open_by_handle_at",
    "perf_event_open",
    "quotactl",
    "quotactl_fd",
    "settimeofday",
    "stime",
    "swapoff",
    "swapon",
    # The kernel's log is one for all: what a crash writes here could be read there.
    "syslog",
    "uselib",
)


def _of_family(families: tuple[int, ...], otherwise: Piece = _NO_FAMILY) -> Piece:
    """socket(2), socketpair(2): the first argument."""
    return load_argument(0) + if_among(families, ALLOW, otherwise)


def _strict_socket() -> Piece:
    """netlink, but not to nf_tables and its relatives; no packet sockets."""
    refused = if_equal(_NETLINK_NETFILTER, refuse(errno.EPROTONOSUPPORT), ALLOW)
    netlink = if_equal(socket.AF_NETLINK, load_argument(2) + refused, _NO_FAMILY)
    return _of_family(STRICT_FAMILIES, netlink)


def _without_callout() -> Piece:
    """request_key(2): with callout_info a program of the host would be run; then as if that had found no key."""
    refused = refuse(errno.ENOKEY)
    return load_argument(2) + if_equal(0, load_argument(2, high=True) + if_equal(0, ALLOW, refused), refused)


def _no_key_for_everybody() -> Piece:
    """keyctl(2): a key's number means the same in every container, so nobody's key may be for everybody."""
    of_permissions = load_argument(2) + if_any_bit(_KEY_OTH_ALL, refuse(errno.EACCES), ALLOW)
    return load_argument(0) + if_equal(_KEYCTL_SETPERM, of_permissions, ALLOW)


def _personality(*, exactly: bool) -> Piece:
    """personality(2): Linux only, with any flags (gdb, setarch); or as every container engine has it."""
    if exactly:
        allowed = [base | flag for base in (_PER_LINUX, _PER_LINUX32) for flag in (0, _UNAME26)]
        return load_argument(0) + if_among([*allowed, _PER_QUERY], ALLOW, _EPERM)
    base = mask(_PER_MASK) + if_among((_PER_LINUX, _PER_LINUX32), ALLOW, _EPERM)
    return load_argument(0) + if_equal(_PER_QUERY, ALLOW, base)


def _no_table_replaced() -> Piece:
    """setsockopt(2): the older ways into packet filters."""
    refused = refuse(errno.ENOPROTOOPT)
    of_ip = load_argument(2) + if_among((_XT_SET_REPLACE, _ARPT_SET_REPLACE, _EBT_SET_ENTRIES), refused, ALLOW)
    of_ipv6 = load_argument(2) + if_equal(_XT_SET_REPLACE, refused, ALLOW)
    return load_argument(1) + if_equal(_SOL_IP, of_ip, if_equal(_SOL_IPV6, of_ipv6, ALLOW))


def _no_user_namespace() -> Piece:
    """clone(2), unshare(2): the first argument has the flags."""
    return load_argument(0) + if_any_bit(CLONE_NEWUSER, _EPERM, ALLOW)


DEFAULT: Rules = {
    **dict.fromkeys(_HOST_ONLY, _EPERM),
    "socket": _of_family(FAMILIES),
    "socketpair": _of_family(FAMILIES),
    # i386: the family is in memory, where a filter cannot look. Programs since 2015 use the calls above.
    "socketcall": load_argument(0) + if_among((_SYS_SOCKET, _SYS_SOCKETPAIR), _NO_FAMILY, ALLOW),
    "keyctl": _no_key_for_everybody(),
    "personality": _personality(exactly=False),
    "request_key": _without_callout(),
}

STRICT: Rules = {
    **DEFAULT,
    "socket": _strict_socket(),
    "socketpair": _of_family(STRICT_FAMILIES),
    "setsockopt": _no_table_replaced(),
    "personality": _personality(exactly=True),
    "clone": _no_user_namespace(),
    "unshare": _no_user_namespace(),
    # Its flags are in memory; libc falls back to clone.
    "clone3": _ENOSYS,
    "ioctl": load_argument(1) + if_among((termios.TIOCSTI, termios.TIOCLINUX), _EPERM, ALLOW),
    "userfaultfd": _EPERM,
    "modify_ldt": _ENOSYS,
    **dict.fromkeys(("add_key", "keyctl", "request_key"), _ENOSYS),
}


def _calls(rules: Rules, architecture: Architecture) -> Piece:
    """The answer to each call of one architecture."""
    numbers = {number_on(name, architecture): piece for name, piece in rules.items()}
    return search({number: piece for number, piece in numbers.items() if number is not None}, ALLOW)


def _native(rules: Rules, architecture: Architecture, first_refused: int | None) -> Piece:
    calls = _calls(rules, architecture)
    if first_refused is not None:
        calls = if_at_least(first_refused, _ENOSYS, calls)
    return load(NR) + calls


def _default(architecture: Architecture) -> Piece:
    if architecture is X86_64:
        compat = if_equal(I386.audit, load(NR) + _calls(DEFAULT, I386), _ENOSYS)
        return if_equal(X86_64.audit, _native(DEFAULT, X86_64, X32_SYSCALL_BIT), compat)
    return if_equal(architecture.audit, _native(DEFAULT, architecture, None), _ENOSYS)


def _strict(architecture: Architecture) -> Piece:
    return if_equal(architecture.audit, _native(STRICT, architecture, LAST_REVIEWED + 1), _ENOSYS)


_MACHINES = {one.name: one for one in (X86_64, AARCH64)}
PROFILES: Mapping[str, Callable[[Architecture], Piece] | None] = {"default": _default, "strict": _strict, "open": None}


@cache
def compile_profile(profile: str, machine: str) -> bytes:
    """The filter of a profile as an array of struct sock_filter, for os.uname().machine; empty: no filter.

    Raises ValueError for a profile that is none, Unimplemented for a machine whose system calls are not known here.
    """
    if profile not in PROFILES:
        raise ValueError(f"{profile!r} is not one of the profiles {', '.join(PROFILES)}")
    assemble = PROFILES[profile]
    if assemble is None:
        return b""
    if machine not in _MACHINES:
        raise Unimplemented(
            f"The seccomp profile {profile} is not there for {machine}.",
            resolution=f"Use a machine of {' or '.join(_MACHINES)}, or the profile `open`.",
            reason="NO_SECCOMP_PROFILE",
        )
    return load(ARCH) + assemble(_MACHINES[machine])
