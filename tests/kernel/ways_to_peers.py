"""Which of the ways to know who has connected this kernel has, for tests that need one of them."""

import errno
import os
import socket

from sysproc.linux.peers import PIDFD_INFO_CGROUPID, PIDFD_INFO_EXIT, pidfd_get_info, so_peerpidfd


def no_pidfd_of_peers() -> str:
    """Why not; empty if it has."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        try:
            os.close(so_peerpidfd(ours))
        except OSError as failure:
            if failure.errno != errno.ENOPROTOOPT:
                raise
            return "no SO_PEERPIDFD before Linux 6.5"
    return ""


def no_info_of_pidfds() -> str:
    """The same, of what PIDFD_GET_INFO says of a process."""
    pidfd = os.pidfd_open(os.getpid())
    try:
        pidfd_get_info(pidfd, PIDFD_INFO_CGROUPID)
    except OSError as failure:
        if failure.errno not in (errno.ENOTTY, errno.EINVAL):
            raise
        return "no PIDFD_GET_INFO before Linux 6.13"
    finally:
        os.close(pidfd)
    return no_pidfd_of_peers()


def no_info_of_the_dead() -> str:
    """The same, of one that has been reaped."""
    if reason := no_info_of_pidfds():
        return reason
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    pidfd = os.pidfd_open(pid)
    try:
        os.waitpid(pid, 0)
        pidfd_get_info(pidfd, PIDFD_INFO_CGROUPID | PIDFD_INFO_EXIT)
    except ProcessLookupError:
        return "nothing is kept of processes that are reaped before Linux 6.15"
    finally:
        os.close(pidfd)
    return ""
