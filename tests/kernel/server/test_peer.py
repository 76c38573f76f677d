"""Who is calling, as the kernel says, by each of the ways that kernels have: in a container, on the host, gone."""

import grp
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from sysproc.ids import new_container_id, to_hex
from sysproc.isolation.cgroups import Cgroup, CgroupMode, CgroupTree, Limits
from sysproc.server import peer
from sysproc.server.peer import Caller, PeerIsGone, Peers
from tests.kernel.ways_to_peers import no_info_of_pidfds, no_info_of_the_dead, no_pidfd_of_peers
from tests.leaks import Scope, leak_check

UID_BASE = 0x6F000000
NOBODY = 65534
WAYS = {"cgroup id": peer.by_cgroup_id, "pidfd": peer.by_pidfd, "credentials": peer.by_credentials}
MISSING = {"cgroup id": no_info_of_pidfds(), "pidfd": no_pidfd_of_peers()}


@dataclass(frozen=True)
class Place:
    """A container without a kernel of its own: the cgroups of one, below another."""

    tree: CgroupTree
    parent: int
    container: int
    cgroup: Cgroup


@pytest.fixture
def place() -> Iterator[Place]:
    root = f"sysproc-test-peer-{os.getpid()}"
    with leak_check(Scope(cgroup_roots=(root,), uids=(UID_BASE, 65536))):
        tree = CgroupTree(root)
        tree.prepare()
        parent, container = new_container_id(), new_container_id()
        above = tree.create([to_hex(parent)], Limits())
        cgroup = tree.create([to_hex(parent), to_hex(container)], Limits())
        yield Place(tree, parent, container, cgroup)
        cgroup.kill()
        cgroup.remove()
        above.remove()
        tree.remove()


def enter(cgroup: Cgroup) -> None:
    """Move this process into a container's cgroups, in every hierarchy."""
    directories = cgroup.procs_dirs
    for directory in [directories.v2, *directories.v1.values()]:
        if directory is not None:
            with open(f"{directory}/cgroup.procs", "w") as file:
                file.write("0")


@contextmanager
def connected(
    cgroup: Cgroup | None, uid: int = UID_BASE, groups: tuple[int, ...] = (), gid: int = 0
) -> Iterator[tuple[socket.socket, Callable[[], None]]]:
    """A connection from a child in this cgroup, as this user; and what ends the child and reaps it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("")
        listener.listen()
        listener.settimeout(5)
        pid = os.fork()
        if pid == 0:
            connect_and_stay(cgroup, listener.getsockname(), uid, gid, groups)
        accepted, _ = listener.accept()

    ended: list[int] = []

    def end() -> None:
        if not ended:
            accepted.shutdown(socket.SHUT_RDWR)
            ended.append(os.waitpid(pid, 0)[0])

    with accepted:
        yield accepted, end
        end()


def connect_and_stay(cgroup: Cgroup | None, address: bytes, uid: int, gid: int, groups: tuple[int, ...]) -> None:
    try:
        if cgroup is not None:
            enter(cgroup)
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(address)
            client.recv(1)
    finally:
        os._exit(0)


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, place: Place) -> str:
    """Identification by one of the ways only."""
    if request.param == "cgroup id" and place.tree.mode is CgroupMode.LEGACY:
        pytest.skip("the host has cgroups of version 1 only")
    if reason := MISSING.get(request.param, ""):
        pytest.skip(reason)
    find = WAYS[request.param]
    monkeypatch.setattr(peer, "find_place", lambda cgroups, _: lambda sock: find(cgroups, sock))
    return str(request.param)


@pytest.mark.parametrize(("uid", "authority"), [(0, True), (33, False)])
def test_inside_root_has_authority_and_others_do_not(place: Place, way: str, uid: int, authority: bool) -> None:
    peers = Peers(place.tree, None)
    with connected(place.cgroup, UID_BASE + uid) as (sock, _):
        caller = peers.in_container(sock, place.container, UID_BASE)
    assert caller == Caller(place.container, uid, 0, authority)


def test_a_containers_socket_answers_its_own_container_only(place: Place, way: str) -> None:
    peers = Peers(place.tree, None)
    for cgroup, container in ((None, place.container), (place.cgroup, place.parent)):
        with connected(cgroup) as (sock, _):
            caller = peers.in_container(sock, container, UID_BASE)
        assert "not in" in caller.refused
        assert not caller.authority


def test_a_uid_that_is_not_of_the_container_is_refused(place: Place, way: str) -> None:
    peers = Peers(place.tree, None)
    for uid in (0, UID_BASE - 1, UID_BASE + 65536):
        with connected(place.cgroup, uid) as (sock, _):
            assert peers.in_container(sock, place.container, UID_BASE).refused


def test_a_container_cannot_use_the_hosts_socket_not_even_as_root(place: Place, way: str) -> None:
    with connected(place.cgroup, uid=0) as (sock, _):
        caller = Peers(place.tree, None).on_host(sock)
    assert to_hex(place.container) in caller.refused
    assert not caller.authority


@pytest.mark.parametrize(
    ("uid", "gid", "groups", "allowed"),
    [(0, 0, (), True), (NOBODY, 4242, (), True), (NOBODY, 1, (7, 4242), True), (NOBODY, 1, (7,), False)],
)
def test_on_the_host_root_and_the_group_may_call(
    place: Place, way: str, uid: int, gid: int, groups: tuple[int, ...], allowed: bool
) -> None:
    with connected(None, uid, groups, gid) as (sock, _):
        caller = Peers(place.tree, 4242).on_host(sock)
    assert (caller.uid, caller.authority, caller.refused == "") == (uid, allowed, allowed)


def test_without_the_group_only_root_may_call(place: Place, way: str) -> None:
    with connected(None, NOBODY, (grp.getgrnam("root").gr_gid,), 0) as (sock, _):
        assert Peers(place.tree, None).on_host(sock).refused


def test_who_is_gone_by_now_is_known_or_refused(place: Place, way: str) -> None:
    """A peer that has ended is never taken for somebody on the host."""
    with connected(place.cgroup) as (sock, end):
        end()
        peers = Peers(place.tree, None)
        inside, host = peers.in_container(sock, place.container, UID_BASE), peers.on_host(sock)
    assert host.refused
    assert (inside.refused == "") == (way == "cgroup id" and not no_info_of_the_dead())


def test_a_peer_whose_cgroup_is_gone_too_is_refused(place: Place) -> None:
    with connected(place.cgroup) as (sock, end):
        end()
        place.cgroup.remove()
        peers = Peers(place.tree, None, cgroup_ids=place.tree.mode is not CgroupMode.LEGACY)
        assert peers.in_container(sock, place.container, UID_BASE).refused
        assert peers.on_host(sock).refused


def test_this_kernel_uses_its_best_way(place: Place) -> None:
    with connected(place.cgroup) as (sock, _):
        find = peer.find_place(place.tree, cgroup_ids=place.tree.mode is not CgroupMode.LEGACY)
        assert find(sock) == (to_hex(place.parent), to_hex(place.container))


def test_a_pid_that_is_nobodys_is_gone(place: Place) -> None:
    with pytest.raises(PeerIsGone):
        peer.place_of_living(place.tree, os.open("/dev/null", os.O_RDONLY), 2**22 - 1)
