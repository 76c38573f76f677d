"""Who is calling, as the kernel says: from a connected unix socket to a frozen `Caller`.

Who comes from another machine is found out in `sysproc.server.remote`.

    SO_PEERPIDFD, PIDFD_GET_INFO   the cgroup of the very process that connected, also when it is dead by now
    SO_PEERPIDFD alone             /proc/PID/cgroup; the pidfd must still be alive afterwards, else refused
    neither                        SO_PEERCRED, pidfd_open, /proc/PID/cgroup, alive; the uid is that at connect(2)

In the last case a pid may have been taken by another process before pidfd_open. That is harmless: a container's
socket is reachable from that container only, so what is found there is of this container or refused.
What a caller may do is in `sysproc.server.access`; the wrappers are in `sysproc.linux.peers`.
"""

import errno
import os
import select
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from sysproc import api_users
from sysproc.ids import from_hex, to_hex
from sysproc.isolation.cgroups import NoSuchCgroup
from sysproc.linux.peers import (
    PIDFD_INFO_CGROUPID,
    PIDFD_INFO_EXIT,
    pidfd_get_info,
    so_peercred,
    so_peergroups,
    so_peerpidfd,
)

CONTAINER_UIDS = 65536
GONE = "The process that connected has ended: who it was cannot be told any more."


class Cgroups(Protocol):
    """What is asked of `sysproc.isolation.cgroups`: the ids from the top down to the container; None is the host.

    Both raise NoSuchCgroup where it cannot be told, which is never taken for the host.
    """

    def container_of_cgroup_id(self, cgroup_id: int) -> tuple[str, ...] | None:
        """By the inode of a directory of the v2 hierarchy."""

    def container_of_proc_cgroup(self, text: str) -> tuple[str, ...] | None:
        """By the text of /proc/PID/cgroup."""


@dataclass(frozen=True)
class Remote:
    """What is known of a caller on another machine.

    identity: the URI SAN of its certificate. serial: the certificate's number, hexadecimal. address: with the port.
    """

    identity: str
    serial: str
    address: str


@dataclass(frozen=True)
class Caller:
    """One connection's other end. `uid` and `pid` are those inside its container, or of the host.

    container_id: None is the host. authority: whether it may do more than ask who it is.
    refused: why every call of it is refused, for people; empty if it is not.
    remote: None for a process of this host; for others uid and pid are 0.
    """

    container_id: int | None
    uid: int
    pid: int
    authority: bool
    refused: str = ""
    remote: Remote | None = None

    def __str__(self) -> str:
        """For logs, and as the caller of a request_id: `host/0`, `00c0ffee00c0ffee/1000`, `spiffe://sysproc/host`.

        Of a remote one neither address nor serial number: a repetition may come by another connection, with a
        renewed certificate. Its ids are apart from those of the processes here that have the same authority.
        """
        if self.remote is not None:
            return self.remote.identity
        return f"{'host' if self.container_id is None else to_hex(self.container_id)}/{self.uid}"


UNKNOWN = Caller(None, -1, -1, False, "This connection did not come by a public socket of the service.")


class PeerIsGone(Exception):
    """The process that connected has ended, and the kernel does not keep what it was."""


Finder = Callable[[socket.socket], tuple[str, ...] | None]


class Peers:
    """Finds out who is at the other end; built once, blocks for microseconds only."""

    def __init__(self, cgroups: Cgroups, group_gid: int | None, *, cgroup_ids: bool = True) -> None:
        self._cgroups, self._gid = cgroups, group_gid
        self._find = find_place(cgroups, cgroup_ids)

    def on_host(self, sock: socket.socket) -> Caller:
        """A connection to the host's socket: root and the service's group have authority, others are refused."""
        cred = so_peercred(sock)
        caller = Caller(None, cred.uid, cred.pid, authority=True)
        try:
            place = self._find(sock)
        except (PeerIsGone, NoSuchCgroup):
            return refuse(caller, GONE)
        if place is not None:
            return refuse(caller, f"Processes of container {place[-1]} use its own socket, not the host's.")
        if cred.uid == 0 or (self._gid is not None and self._gid in {cred.gid, *so_peergroups(sock)}):
            return caller
        return refuse(caller, "On the host only root and members of the service's group may call.")

    def in_container(self, sock: socket.socket, container_id: int, uid_base: int, users: str = "") -> Caller:
        """A connection to a container's socket: it must be of that container.

        Its uid 0 has authority, and who else was given it (`users`, see `sysproc.api_users`).
        """
        cred = so_peercred(sock)
        uid = cred.uid - uid_base
        caller = Caller(container_id, uid, pid_inside(cred.pid), authority=uid == 0 or api_users.includes(users, uid))
        try:
            place = self._find(sock)
        except (PeerIsGone, NoSuchCgroup):
            return refuse(caller, GONE)
        if place is None or from_hex(place[-1]) != container_id or not 0 <= uid < CONTAINER_UIDS:
            return refuse(caller, "This socket belongs to a container that the caller is not in.")
        return caller


def refuse(caller: Caller, why: str) -> Caller:
    """The same caller, with every call refused."""
    return replace(caller, authority=False, refused=why)


def find_place(cgroups: Cgroups, cgroup_ids: bool) -> Finder:
    """The best way that this kernel has to find the container of a peer.

    cgroup_ids: whether a v2 cgroup tells the container (not where the host has cgroups of version 1 only).
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        try:
            pidfd = so_peerpidfd(ours)
        except OSError as error:
            if error.errno != errno.ENOPROTOOPT:
                raise
            return lambda sock: by_credentials(cgroups, sock)
        try:
            pidfd_get_info(pidfd, PIDFD_INFO_CGROUPID)
        except OSError as error:
            if error.errno not in (errno.ENOTTY, errno.EINVAL):
                raise
            cgroup_ids = False
        finally:
            os.close(pidfd)
    return lambda sock: by_cgroup_id(cgroups, sock) if cgroup_ids else by_pidfd(cgroups, sock)


def by_cgroup_id(cgroups: Cgroups, sock: socket.socket) -> tuple[str, ...] | None:
    """The container of the process that connected, alive or not; None on the host. Linux 6.13."""
    pidfd = peer_pidfd(sock)
    try:
        info = pidfd_get_info(pidfd, PIDFD_INFO_CGROUPID | PIDFD_INFO_EXIT)
    except ProcessLookupError as error:
        raise PeerIsGone from error
    finally:
        os.close(pidfd)
    if info.cgroupid is None:
        raise PeerIsGone
    return cgroups.container_of_cgroup_id(info.cgroupid)


def by_pidfd(cgroups: Cgroups, sock: socket.socket) -> tuple[str, ...] | None:
    """The same for kernels without PIDFD_GET_INFO, from 6.5 on, and hosts without cgroup v2."""
    return place_of_living(cgroups, peer_pidfd(sock), so_peercred(sock).pid)


def by_credentials(cgroups: Cgroups, sock: socket.socket) -> tuple[str, ...] | None:
    """The same for kernels without SO_PEERPIDFD."""
    pid = so_peercred(sock).pid
    try:
        pidfd = os.pidfd_open(pid)
    except (ProcessLookupError, ValueError) as error:
        raise PeerIsGone from error
    return place_of_living(cgroups, pidfd, pid)


def peer_pidfd(sock: socket.socket) -> int:
    """A pidfd of the process that connected; raises PeerIsGone."""
    try:
        return so_peerpidfd(sock)
    except OSError as error:
        # EINVAL and ESRCH: reaped, as kernels before 6.16 say it.
        if error.errno not in (errno.ESRCH, errno.EINVAL):
            raise
        raise PeerIsGone from error


def place_of_living(cgroups: Cgroups, pidfd: int, pid: int) -> tuple[str, ...] | None:
    """Read /proc/PID/cgroup, and make sure afterwards that it was of the pidfd's process. Closes the pidfd."""
    try:
        text = Path(f"/proc/{pid}/cgroup").read_text()
        if has_ended(pidfd):
            raise PeerIsGone
    except (FileNotFoundError, ProcessLookupError) as error:
        raise PeerIsGone from error
    finally:
        os.close(pidfd)
    return cgroups.container_of_proc_cgroup(text)


def has_ended(pidfd: int) -> bool:
    """Whether the process has ended: its pidfd is readable then."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def pid_inside(pid: int) -> int:
    """The pid inside the container; 0 if the process is gone. Only for people to see.

    proc_pid_status(5), NSpid (4.1): the pid here, in the container (a child of our own pid namespace), further in.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    pids = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
    return int(pids[1]) if len(pids) > 1 else 0
