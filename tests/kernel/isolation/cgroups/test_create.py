"""Making and removing the cgroups of containers."""

import os
import signal
from pathlib import Path

import pytest

from sysproc.errors import FailedPrecondition, InvalidArgument, ResourceExhausted, Unavailable, Unimplemented
from sysproc.isolation.cgroups import CgroupTree, Limits
from sysproc.isolation.cgroups.place import place_at
from tests.kernel.isolation.cgroups.conftest import ROOT, A, B, C, Processes, controllers, need

pytestmark = pytest.mark.vm


def directories(tree: CgroupTree) -> set[str]:
    return set(place_at(tree.hierarchies, ROOT).directories())


def test_every_hierarchy_gets_the_same_path(tree: CgroupTree) -> None:
    tree.create([A], Limits())
    group = tree.create([A, B], Limits())
    made = group.procs_dirs
    leaves = {directory for directory in (made.v2, *made.v1.values()) if directory}
    assert leaves == {f"{directory}/{A}/{B}/procs" for directory in directories(tree)}
    assert all(os.path.isdir(leaf) for leaf in leaves)


def test_a_process_is_in_every_hierarchy_that_is_mounted(tree: CgroupTree, processes: Processes) -> None:
    group = tree.create([A], Limits())
    pid = processes.start(group)
    with open(f"/proc/{pid}/cgroup") as file:
        paths = dict(line.strip().split(":", 2)[1:] for line in file)
    mounted = [one.name for one in (tree.hierarchies.v2, *tree.hierarchies.v1) if one]
    assert {name: paths[name] for name in mounted} == dict.fromkeys(mounted, f"/{ROOT}/{A}/procs")


def test_whatever_the_umask_a_container_may_walk_down_to_its_own(tree: CgroupTree) -> None:
    before = os.umask(0o077)
    try:
        group = tree.create([A], Limits())
    finally:
        os.umask(before)
    leaves = [directory for directory in (group.procs_dirs.v2, *group.procs_dirs.v1.values()) if directory]
    modes = {oct(os.stat(directory).st_mode & 0o777) for leaf in leaves for directory in (leaf, os.path.dirname(leaf))}
    assert modes == {"0o755"}


def test_prepare_and_create_can_be_repeated(tree: CgroupTree) -> None:
    tree.create([A], Limits())
    tree.create([A, B], Limits())
    tree.prepare()
    tree.create([A], Limits())
    assert tree.leftovers() == [(A,), (A, B)]


def test_a_parent_without_cgroups_is_made_with_its_limits(tree: CgroupTree) -> None:
    need(tree, "pids")
    tree.create([A, B, C], Limits(pids=10), above=[Limits(pids=30), Limits(pids=20)])
    assert [tree.open(path).limits().pids for path in tree.leftovers()] == [30, 20, 10]


def test_limits_above_do_not_touch_a_parent_that_is_there(tree: CgroupTree) -> None:
    need(tree, "pids")
    tree.create([A], Limits(pids=30))
    tree.create([A, B], Limits(), above=[Limits(pids=5)])
    assert tree.open([A]).limits().pids == 30


def test_a_limit_out_of_range_leaves_nothing(tree: CgroupTree) -> None:
    with pytest.raises(InvalidArgument) as refused:
        tree.create([A, B], Limits(memory_bytes=1, cpu_millis=9, pids=0))
    assert [one.field for one in refused.value.violations] == [
        "limits.memory_bytes",
        "limits.cpu_millis",
        "limits.pids",
    ]
    assert tree.leftovers() == []


def test_a_limit_without_its_controller_leaves_nothing(tree: CgroupTree) -> None:
    if "pids" in controllers(tree):
        pytest.skip("this host can limit everything")
    with pytest.raises(Unimplemented, match="cannot limit pids"):
        tree.create([A, B], Limits(pids=10))
    assert tree.leftovers() == []


def test_what_is_no_path_of_ids_is_refused(tree: CgroupTree) -> None:
    for path in ([], ["procs"], [A, "../.."], ["000000000000000A"]):
        with pytest.raises(ValueError, match="not a path"):
            tree.create(path, Limits())


def test_nesting_beyond_what_the_kernel_can_name_is_refused(tree: CgroupTree) -> None:
    with pytest.raises(ResourceExhausted, match="nested too deeply"):
        tree.create([A] * 240, Limits())
    assert tree.leftovers() == []


def test_removing_waits_for_the_last_process(tree: CgroupTree, processes: Processes) -> None:
    group = tree.create([A], Limits())
    processes.start(group)
    group.kill()
    group.remove()
    assert not group.exists


def test_removing_says_who_is_left(tree: CgroupTree, processes: Processes) -> None:
    group = tree.create([A], Limits())
    pid = processes.start(group)
    with pytest.raises(Unavailable, match=f"They are {pid} "):
        group.remove(timeout_s=0.05)
    assert group.pids() == [pid]


def test_a_zombie_does_not_hold_up_the_removal(tree: CgroupTree, processes: Processes) -> None:
    group = tree.create([A], Limits())
    pid = processes.start(group, lambda: None)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    group.remove()
    assert not group.exists


def test_removing_can_be_repeated(tree: CgroupTree) -> None:
    group = tree.create([A], Limits())
    group.remove()
    group.remove()
    tree.open([B, C]).remove()


def test_a_stopped_container_keeps_its_limits_while_children_run(tree: CgroupTree, processes: Processes) -> None:
    parent, child = tree.create([A], Limits()), tree.create([A, B], Limits())
    pid = processes.start(child)
    parent.remove()
    assert parent.exists
    assert child.pids() == [pid]
    child.kill()
    child.remove()
    parent.remove()
    assert tree.leftovers() == []


def test_a_stopped_container_can_be_made_again(tree: CgroupTree, processes: Processes) -> None:
    parent = tree.create([A], Limits())
    tree.create([A, B], Limits())
    parent.remove()
    processes.start(tree.create([A], Limits()))
    assert len(parent.pids()) == 1


def test_making_it_again_over_living_processes_is_refused(tree: CgroupTree, processes: Processes) -> None:
    processes.start(tree.create([A], Limits()))
    with pytest.raises(FailedPrecondition, match="processes of an earlier run"):
        tree.create([A], Limits())
    assert tree.open([A]).populated


def test_groups_made_inside_a_container_go_with_it(tree: CgroupTree) -> None:
    group = tree.create([A], Limits())
    os.makedirs(f"{(tree.hierarchies.v2 and group.procs_dirs.v2) or group.procs_dirs.v1['freezer']}/x/y/procs")
    group.remove()
    assert not group.exists


def test_leftovers_are_found_in_any_hierarchy(tree: CgroupTree) -> None:
    last = max(directories(tree))
    os.makedirs(f"{last}/{A}/{B}")
    assert tree.leftovers() == [(A,), (A, B)]
    tree.open([A, B]).remove()
    tree.open([A]).remove()
    assert tree.leftovers() == []


def test_the_launcher_joins_its_leaf_and_is_of_the_host(tree: CgroupTree, processes: Processes) -> None:
    pid = os.fork()
    if pid == 0:
        for path in tree.launcher_procs:
            path.write_text("0")
        signal.pause()
    processes.pids.append(pid)
    while f"/{ROOT}/launcher" not in (text := Path(f"/proc/{pid}/cgroup").read_text()):
        os.sched_yield()
    assert tree.container_of_proc_cgroup(text) is None
    os.kill(pid, signal.SIGKILL)
    assert processes.end(pid) == -signal.SIGKILL
