"""pidfds: open, signal, take fds from another process, ask what the kernel knows of it.

Waiting for the end of a process is polling its pidfd for reading; the wait itself belongs to the callers.
"""

import errno
import os
import signal
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack, suppress

from sysproc.linux.libc import syscall

NR_PIDFD_GETFD = 438


def pidfd_open(pid: int) -> int:
    """pidfd_open(2), Linux 5.3; ProcessLookupError if there is no such process. Close-on-exec."""
    return os.pidfd_open(pid)


def pidfd_send_signal(pidfd: int, number: int) -> bool:
    """pidfd_send_signal(2), Linux 5.1; False if the process has ended already."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except OSError as failure:
        if failure.errno != errno.ESRCH:
            raise
        return False
    return True


def kill_listed(pids: Iterable[int], listed: Callable[[], Collection[int]]) -> None:
    """SIGKILL by pidfds, and only to those that are listed once more: a pid may have become another process's."""
    with ExitStack() as stack:
        pidfds = {}
        for pid in pids:
            with suppress(ProcessLookupError):
                pidfds[pid] = pidfd_open(pid)
                stack.callback(os.close, pidfds[pid])
        for pid in pidfds.keys() & set(listed()):
            pidfd_send_signal(pidfds[pid], signal.SIGKILL)


def pidfd_getfd(pidfd: int, target_fd: int) -> int:
    """pidfd_getfd(2), Linux 5.6: a duplicate of another process's fd. EBADF: it has no such fd. Close-on-exec."""
    return syscall("pidfd_getfd", NR_PIDFD_GETFD, pidfd, target_fd, 0, target=target_fd)
