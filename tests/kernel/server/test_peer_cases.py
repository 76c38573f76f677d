"""Connections of a more difficult kind, by each of the ways to find the peer: the right answer, or a refusal.

Made before a fork, by a process whose pid is another's by now, by a program with another effective uid, from nested
namespaces, through a socket that was passed on. The plain ones are in `tests.kernel.server.test_peer`.
"""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sysproc.linux.namespaces import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    unshare,
)
from sysproc.linux.prctl import set_dumpable
from sysproc.server.peer import Caller, Peers
from tests.kernel.server.test_peer import UID_BASE, Place, enter, place, way

__all__ = ["place", "way"]  # fixtures

LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
KNOWS_THE_DEAD = "cgroup id"
NESTED = {
    "user": CLONE_NEWUSER,
    "pid": CLONE_NEWUSER | CLONE_NEWPID,
    "mount and cgroup": CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWCGROUP,
    "the others": CLONE_NEWUSER | CLONE_NEWIPC | CLONE_NEWUTS,  # abstract sockets do not leave a network namespace
}


@contextmanager
def connection_of(connect: Callable[[bytes], None]) -> Iterator[tuple[socket.socket, int]]:
    """What was accepted from a child that runs this with the address, and the child's pid. It is ended at the end."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("")
        listener.listen()
        listener.settimeout(5)
        pid = os.fork()
        if pid == 0:
            with suppress(BaseException):
                connect(listener.getsockname())
            os._exit(0)
        accepted, _ = listener.accept()
    with accepted:
        yield accepted, pid
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)


def connected(address: bytes) -> socket.socket:
    """A connection."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(address)
    return client


def stay(address: bytes) -> None:
    """Connect, until the other side ends it."""
    connected(address).recv(1)


def ask(place: Place, accepted: socket.socket) -> Caller:
    """Who the service says it is, on the container's own socket."""
    return Peers(place.tree, None).in_container(accepted, place.container, UID_BASE)


def become(uid: int) -> None:
    """A user of the container."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    set_dumpable(True)  # its /proc/self is its own again


def test_a_connection_made_before_a_fork_is_of_who_made_it(place: Place, way: str) -> None:
    def connect(address: bytes) -> None:
        enter(place.cgroup)
        become(UID_BASE + 33)
        client = connected(address)
        if os.fork() == 0:
            client.recv(1)
            os._exit(0)
        os.wait()

    with connection_of(connect) as (accepted, _):
        caller = ask(place, accepted)
        accepted.shutdown(socket.SHUT_RDWR)
    assert (caller.container_id, caller.uid, caller.authority, caller.refused) == (place.container, 33, False, "")


def test_a_connection_that_a_child_has_kept_is_known_or_refused(place: Place, way: str) -> None:
    """Whoever made it has ended; the child that has it now is never asked for."""

    def connect(address: bytes) -> None:
        enter(place.cgroup)
        become(UID_BASE)
        client = connected(address)
        if os.fork() == 0:
            os.setsid()
            client.recv(1)
            os._exit(0)

    with connection_of(connect) as (accepted, pid):
        os.waitpid(pid, 0)
        caller = ask(place, accepted)
        accepted.shutdown(socket.SHUT_RDWR)
    assert (caller.refused == "") == (way == KNOWS_THE_DEAD)
    assert caller.container_id == place.container


def with_pid(pid: int) -> int:
    """Fork a child that has just this pid, as a busy host comes round to it; it waits to be ended."""
    for _ in range(2000):
        LAST_PID.write_text(str(pid - 1))
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
        os.close(reader)
        if child == pid:
            return writer
        os.close(writer)
        os.waitpid(child, 0)
    pytest.skip("the host does not come round to the pid: it is taken by somebody")


@pytest.mark.skipif(not os.access(LAST_PID, os.W_OK), reason="no ns_last_pid here (CONFIG_CHECKPOINT_RESTORE)")
def test_a_pid_that_is_anothers_by_now_is_not_taken_for_the_peer(place: Place, way: str) -> None:
    """The peer was on the host, where root may call; its pid is taken by a process outside of the container."""

    def connect(address: bytes) -> None:
        enter(place.cgroup)
        become(UID_BASE)
        client = connected(address)
        if os.fork() == 0:
            client.recv(1)
            os._exit(0)

    with connection_of(connect) as (accepted, pid):
        os.waitpid(pid, 0)
        writer = with_pid(pid)
        inside, on_host = ask(place, accepted), Peers(place.tree, None).on_host(accepted)
        os.close(writer)
        os.waitpid(pid, 0)
        accepted.shutdown(socket.SHUT_RDWR)
    assert (inside.refused == "") == (way == KNOWS_THE_DEAD)
    if way != "credentials":
        assert on_host.refused, "it was in a container"


@pytest.mark.parametrize(("real", "effective", "authority"), [(33, 0, True), (0, 33, False)])
def test_a_setuid_program_is_whom_it_acts_as(
    place: Place, way: str, real: int, effective: int, authority: bool
) -> None:
    """The kernel's own rule, as for any file: the effective uid when it connects decides."""

    def connect(address: bytes) -> None:
        enter(place.cgroup)
        os.setgroups([])
        os.setresuid(UID_BASE + real, UID_BASE + effective, UID_BASE + effective)
        stay(address)

    with connection_of(connect) as (accepted, _):
        caller = ask(place, accepted)
        accepted.shutdown(socket.SHUT_RDWR)
    assert (caller.uid, caller.authority, caller.refused) == (effective, authority, "")


@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize("flags", NESTED.values(), ids=NESTED.keys())
def test_root_of_a_namespace_of_its_own_is_who_it_is_outside(place: Place, way: str, flags: int, uid: int) -> None:
    def connect(address: bytes) -> None:
        enter(place.cgroup)
        become(UID_BASE + uid)
        unshare(flags)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {UID_BASE + uid} 1")
        if os.getuid() == 0 and os.fork() == 0:  # a child, since only children are in a new PID namespace
            stay(address)
            os._exit(0)
        os.wait()

    with connection_of(connect) as (accepted, _):
        caller = ask(place, accepted)
        accepted.shutdown(socket.SHUT_RDWR)
    assert (caller.container_id, caller.uid, caller.authority) == (place.container, uid, uid == 0)
    assert caller.refused == ""


def test_a_connection_that_was_passed_on_is_of_who_made_it(place: Place, way: str) -> None:
    """And not of who uses it: as any open file."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def connect(address: bytes) -> None:
        enter(place.cgroup)
        become(UID_BASE + 33)
        client = connected(address)
        socket.send_fds(theirs, [b"fd"], [client.fileno()])
        theirs.recv(1)

    ours.settimeout(5)
    with ours, theirs, connection_of(connect) as (accepted, _):
        _, fds, _, _ = socket.recv_fds(ours, 16, 1)  # by the tests, which are root on the host
        caller = ask(place, accepted)
        os.close(fds[0])
        ours.send(b"x")
    assert (caller.uid, caller.authority) == (33, False)
