"""Namespaces and clones: unshare(2), setns(2), clone3(2), and the id maps of a user namespace.

Python 3.11 has no os.unshare and os.setns yet. Which namespaces a container gets is in `sysproc.isolation`.
"""

import ctypes
import os
import signal

from sysproc.linux.libc import NR_CLONE3, number_of, syscall

CLONE_NEWTIME = 0x80
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
CLONE_PIDFD = 0x1000
CLONE_INTO_CGROUP = 0x200000000


def unshare(flags: int) -> None:
    """unshare(2)."""
    syscall("unshare", number_of("unshare"), flags, target=hex(flags))


def setns(fd: int, nstype: int = 0) -> None:
    """setns(2); with a pidfd (Linux 5.8) nstype names several namespaces at once."""
    syscall("setns", number_of("setns"), fd, nstype, target=hex(nstype))


class CloneArgs(ctypes.Structure):
    """struct clone_args of linux/sched.h, version 2 (Linux 5.7)."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls",
            "set_tid", "set_tid_size", "cgroup",
        )
    )  # fmt: skip


def clone3(flags: int, *, cgroup_fd: int | None = None) -> tuple[int, int]:
    """clone3(2), Linux 5.3, as fork: (pid, pidfd) in the parent, (0, -1) in the child.

    CLONE_INTO_CGROUP (5.7) is set when cgroup_fd is given. The caller must be single-threaded: unlike os.fork this
    runs no atfork handlers, so the child may use the interpreter but must end by execve or os._exit.
    """
    pidfd = ctypes.c_int(-1)
    args = CloneArgs(
        flags=flags | CLONE_PIDFD | (CLONE_INTO_CGROUP if cgroup_fd is not None else 0),
        pidfd=ctypes.addressof(pidfd),
        exit_signal=signal.SIGCHLD,
        cgroup=cgroup_fd or 0,
    )
    pid = syscall("clone3", NR_CLONE3, ctypes.byref(args), ctypes.sizeof(args), target=hex(flags))
    return pid, pidfd.value if pid else -1


def write_id_maps(pid: int, base: int, count: int) -> None:
    """Map ids 0..count-1 of the process's user namespace to base.. (user_namespaces(7))."""
    for name in ("uid_map", "gid_map"):
        fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, f"0 {base} {count}\n".encode())
        finally:
            os.close(fd)
