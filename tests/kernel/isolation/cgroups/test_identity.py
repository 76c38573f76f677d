"""From a process to its container."""

import os

import pytest

from sysproc.errors import FailedPrecondition
from sysproc.isolation.cgroups import CgroupTree, Limits, NoSuchCgroup
from sysproc.linux.peers import PIDFD_INFO_CGROUPID, pidfd_get_info
from tests.kernel.isolation.cgroups.conftest import ROOT, A, B, Processes
from tests.kernel.ways_to_peers import no_info_of_pidfds

pytestmark = pytest.mark.vm


def text_of(pid: int) -> str:
    with open(f"/proc/{pid}/cgroup") as file:
        return file.read()


def need_v2(tree: CgroupTree) -> str:
    if tree.hierarchies.v2 is None:
        pytest.skip("no version 2 here")
    return tree.hierarchies.v2.mount


def test_a_process_belongs_to_the_container_that_it_was_put_into(tree: CgroupTree, processes: Processes) -> None:
    tree.create([A], Limits())
    pid = processes.start(tree.create([A, B], Limits()))
    assert tree.container_of_proc_cgroup(text_of(pid)) == (A, B)


def test_this_process_is_of_the_host(tree: CgroupTree) -> None:
    assert tree.container_of_proc_cgroup(text_of(os.getpid())) is None


def test_the_id_of_a_cgroup_says_the_same(tree: CgroupTree) -> None:
    mount = need_v2(tree)
    tree.create([A], Limits())
    tree.create([A, B], Limits())
    ids = [os.stat(f"{mount}/{path}").st_ino for path in (f"{ROOT}/{A}/procs", f"{ROOT}/{A}/{B}/procs")]
    assert [tree.container_of_cgroup_id(one) for one in ids] == [(A,), (A, B)]


@pytest.mark.skipif(no_info_of_pidfds() != "", reason=no_info_of_pidfds())
def test_the_kernel_gives_the_id_of_a_processs_cgroup(tree: CgroupTree, processes: Processes) -> None:
    need_v2(tree)
    pid = processes.start(tree.create([A], Limits()))
    pidfd = os.pidfd_open(pid)
    try:
        cgroup_id = pidfd_get_info(pidfd, PIDFD_INFO_CGROUPID).cgroupid
    finally:
        os.close(pidfd)
    assert cgroup_id is not None
    assert tree.container_of_cgroup_id(cgroup_id) == (A,)


def test_a_group_made_inside_does_not_change_whose_it_is(tree: CgroupTree) -> None:
    mount = need_v2(tree)
    tree.create([A], Limits())
    inner = f"{mount}/{ROOT}/{A}/procs/{B}/procs"
    os.makedirs(inner)
    assert tree.container_of_cgroup_id(os.stat(inner).st_ino) == (A,)


def test_the_hosts_groups_are_nobodys(tree: CgroupTree) -> None:
    mount = need_v2(tree)
    for path in (mount, f"{mount}/{ROOT}", f"{mount}/{ROOT}/launcher"):
        assert tree.container_of_cgroup_id(os.stat(path).st_ino) is None


def test_a_group_that_is_gone_is_never_taken_for_the_hosts(tree: CgroupTree) -> None:
    mount = need_v2(tree)
    group = tree.create([A], Limits())
    cgroup_id = os.stat(f"{mount}/{ROOT}/{A}/procs").st_ino
    group.remove()
    for one in (cgroup_id, 0, (1 << 64) - 1):
        with pytest.raises(NoSuchCgroup):
            tree.container_of_cgroup_id(one)


def test_a_node_itself_is_never_taken_for_the_hosts(tree: CgroupTree) -> None:
    mount = need_v2(tree)
    tree.create([A], Limits())
    with pytest.raises(NoSuchCgroup):
        tree.container_of_cgroup_id(os.stat(f"{mount}/{ROOT}/{A}").st_ino)


def test_a_process_whose_container_was_removed_is_not_of_the_host(tree: CgroupTree, processes: Processes) -> None:
    need_v2(tree)
    group = tree.create([A], Limits())
    pid = processes.start(group, lambda: None)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    group.remove()
    assert tree.container_of_proc_cgroup(text_of(pid)) == (A,)


def test_without_version_2_an_id_says_nothing(tree: CgroupTree) -> None:
    if tree.hierarchies.v2 is not None:
        pytest.skip("version 2 is here")
    with pytest.raises(FailedPrecondition):
        tree.container_of_cgroup_id(1)
