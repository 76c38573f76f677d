"""What the kernel says of the other end of a unix socket."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sysproc.linux import peers
from tests.kernel.ways_to_peers import no_info_of_pidfds, no_info_of_the_dead

Connect = Callable[[], None]


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        sock.listen()
        yield sock


def connected_child(listener: socket.socket, before: Callable[[], None] = lambda: None) -> tuple[int, socket.socket]:
    """A child that connects and stays until the returned socket is closed."""
    pid = os.fork()
    if pid == 0:
        try:
            before()
            client = socket.socket(socket.AF_UNIX)
            client.connect(listener.getsockname())
            client.recv(1)
        finally:
            os._exit(0)
    listener.settimeout(10)
    accepted, _ = listener.accept()
    return pid, accepted


def end(pid: int, accepted: socket.socket) -> None:
    accepted.shutdown(socket.SHUT_RDWR)
    os.waitpid(pid, 0)


@pytest.mark.skipif(no_info_of_pidfds() != "", reason=no_info_of_pidfds())
def test_the_peer_is_the_process_that_connected(listener: socket.socket) -> None:
    pid, accepted = connected_child(listener)
    with accepted:
        pidfd = peers.so_peerpidfd(accepted)
        info = peers.pidfd_get_info(pidfd, peers.PIDFD_INFO_CGROUPID)
        end(pid, accepted)
        os.close(pidfd)
        assert (peers.so_peercred(accepted).pid, info.tgid, info.euid) == (pid, pid, 0)
    assert info.cgroupid is not None


@pytest.mark.skipif(no_info_of_the_dead() != "", reason=no_info_of_the_dead())
def test_the_cgroup_of_a_peer_that_is_dead_and_reaped_is_known(listener: socket.socket) -> None:
    pid, accepted = connected_child(listener)
    with accepted:
        mask = peers.PIDFD_INFO_CGROUPID | peers.PIDFD_INFO_EXIT
        pidfd = peers.so_peerpidfd(accepted)
        alive = peers.pidfd_get_info(pidfd, mask)
        end(pid, accepted)
        dead = peers.pidfd_get_info(pidfd, mask)
        os.close(pidfd)
    assert (dead.exited, alive.exited, dead.tgid) == (True, False, None)
    assert dead.cgroupid == alive.cgroupid


@pytest.mark.parametrize("count", [0, 3, 1000])
def test_all_supplementary_groups_are_seen(listener: socket.socket, count: int) -> None:
    groups = range(50000, 50000 + count)
    pid, accepted = connected_child(listener, lambda: os.setgroups(groups))
    with accepted:
        seen = peers.so_peergroups(accepted)
        end(pid, accepted)
    assert seen == set(groups)


def test_the_credentials_are_those_at_connect() -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("")  # an abstract address of the kernel's choice: everyone may connect
        listener.listen()
        pid, accepted = connected_child(listener, lambda: os.setresuid(4711, 4711, 4711))
        with accepted:
            seen = peers.so_peercred(accepted)
            end(pid, accepted)
    assert (seen.pid, seen.uid) == (pid, 4711)


def test_a_socket_knows_whether_its_path_still_leads_to_it(listener: socket.socket) -> None:
    path = listener.getsockname()
    first = peers.is_bound_to(listener, path)
    os.unlink(path)
    removed = peers.is_bound_to(listener, path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        replaced = peers.is_bound_to(listener, path)
    assert (first, removed, replaced) == (True, False, False)
