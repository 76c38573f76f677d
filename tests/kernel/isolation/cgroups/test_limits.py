"""Limits as the kernel holds them: read back, and run into."""

import errno
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from sysproc.errors import FailedPrecondition, NotFound
from sysproc.isolation.cgroups import Cgroup, CgroupTree, Limits
from sysproc.isolation.cgroups.controllers.cpu import PERIOD_USEC
from tests.kernel.isolation.cgroups.conftest import ROOT, A, B, C, Processes, need, use_memory

pytestmark = pytest.mark.vm

MIB = 1 << 20


def in_force(tree: CgroupTree, group: Cgroup) -> int | None:
    """The CPU quota of version 1, in microseconds a period."""
    hierarchy = tree.hierarchies.v1_with("cpu")
    assert hierarchy is not None
    with open(f"{hierarchy.mount}/{ROOT}/{'/'.join(group.path)}/cpu.cfs_quota_us") as file:
        quota = int(file.read())
    return None if quota < 0 else quota


def need_v1(tree: CgroupTree, controller: str) -> None:
    if tree.hierarchies.v1_with(controller) is None:
        pytest.skip(f"no {controller} of version 1 here")


@pytest.mark.parametrize(
    ("controller", "limits"),
    [
        ("memory", Limits(memory_bytes=64 * MIB)),
        ("memory", Limits(memory_bytes=4 * MIB)),
        ("cpu", Limits(cpu_millis=10)),
        ("cpu", Limits(cpu_millis=1500)),
        ("cpu", Limits(cpu_millis=8192000)),
        ("pids", Limits(pids=4)),
        ("pids", Limits(pids=4 << 20)),
    ],
)
def test_what_was_asked_for_is_what_the_kernel_has(tree: CgroupTree, controller: str, limits: Limits) -> None:
    need(tree, controller)
    group = tree.create([A], limits)
    assert group.limits() == limits
    group.set_limits(Limits())
    assert group.limits() == Limits()
    group.set_limits(limits)
    assert group.limits() == limits


def test_without_cgroups_there_is_nothing_to_limit(tree: CgroupTree) -> None:
    with pytest.raises(NotFound):
        tree.open([A]).set_limits(Limits())
    with pytest.raises(NotFound):
        tree.open([A]).stats()
    assert tree.open([A]).oom_kills() == 0


# -- pids


def fork_until_refused() -> None:
    """Raises BlockingIOError (EAGAIN) where the limit is."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in range(40):
        if os.fork() == 0:
            signal.pause()


def test_a_parents_limit_of_processes_holds_for_all_below(tree: CgroupTree, processes: Processes) -> None:
    need(tree, "pids")
    parent = tree.create([A], Limits(pids=8))
    child = tree.create([A, B], Limits(pids=1000))
    pid = processes.start(child, fork_until_refused)
    assert processes.end(pid) == errno.EAGAIN
    assert parent.stats().pids == 7
    parent.kill()
    assert child.wait_empty(10)


# -- memory


def test_beyond_its_limit_a_container_is_killed_and_says_so(tree: CgroupTree, processes: Processes) -> None:
    need(tree, "memory")
    parent, child = tree.create([A], Limits(memory_bytes=16 * MIB)), tree.create([A, B], Limits())
    assert processes.run(child, lambda: use_memory(64 * MIB)) == -signal.SIGKILL
    assert (parent.oom_kills(), child.oom_kills()) == (0, 1)


def test_a_kill_in_a_group_made_inside_counts_for_the_container(tree: CgroupTree, processes: Processes) -> None:
    need(tree, "memory")
    group = tree.create([A], Limits(memory_bytes=16 * MIB))
    memory = next(one for one in tree.controllers if one.name == "memory")
    leaf = group.procs_dirs.v2 if memory.hierarchy is None else group.procs_dirs.v1[memory.hierarchy]
    os.mkdir(f"{leaf}/inner")

    def move_and_use() -> None:
        with open(f"{leaf}/inner/cgroup.procs", "w") as file:
            file.write("0")
        use_memory(64 * MIB)

    assert processes.run(group, move_and_use) == -signal.SIGKILL
    assert group.oom_kills() == 1


def test_a_limited_container_does_not_swap(tree: CgroupTree) -> None:
    need(tree, "memory")
    tree.create([A], Limits(memory_bytes=16 * MIB))
    legacy = tree.hierarchies.v1_with("memory")
    name = "memory.memsw.limit_in_bytes" if legacy else "memory.swap.max"
    mount = legacy or tree.hierarchies.v2
    assert mount is not None
    path = f"{mount.mount}/{ROOT}/{A}/{name}"
    if not os.path.exists(path):
        pytest.skip("swap is not accounted on this host")
    with open(path) as file:
        assert int(file.read()) == (16 * MIB if legacy else 0)


def test_a_limit_below_what_is_used_is_refused_with_the_figures(tree: CgroupTree, processes: Processes) -> None:
    need(tree, "memory")
    group = tree.create([A], Limits(memory_bytes=64 * MIB))
    ready, told = os.pipe()

    def use_and_stay() -> None:
        memory = bytearray(os.urandom(1)) * (32 * MIB)
        os.write(told, b"!")
        signal.pause()
        assert memory

    pid = processes.start(group, use_and_stay)
    os.read(ready, 1)
    os.close(ready)
    os.close(told)
    with pytest.raises(FailedPrecondition) as refused:
        group.set_limits(Limits(memory_bytes=8 * MIB, pids=None))
    assert int(refused.value.metadata["used_bytes"]) > 32 * MIB
    assert group.limits() == Limits(memory_bytes=64 * MIB)
    assert group.pids() == [pid]


def test_page_cache_gives_way_to_a_lower_limit(tree: CgroupTree, processes: Processes, tmp_path: Path) -> None:
    need(tree, "memory")
    group = tree.create([A], Limits(memory_bytes=64 * MIB))

    def write_file() -> None:
        with (tmp_path / "cached").open("wb") as file:
            file.write(bytes(32 * MIB))
            os.fsync(file.fileno())

    assert processes.run(group, write_file) == 0
    group.set_limits(Limits(memory_bytes=8 * MIB))
    assert group.limits().memory_bytes == 8 * MIB


# -- cpu


def test_a_child_gets_no_more_than_its_parent(tree: CgroupTree) -> None:
    need_v1(tree, "cpu")
    tree.create([A], Limits(cpu_millis=500))
    child = tree.create([A, B], Limits(cpu_millis=2000))
    assert child.limits().cpu_millis == 2000
    assert in_force(tree, child) == PERIOD_USEC // 2


def test_what_was_asked_for_comes_back_when_the_parent_rises(tree: CgroupTree) -> None:
    need_v1(tree, "cpu")
    parent = tree.create([A], Limits(cpu_millis=500))
    tree.create([A, B], Limits())
    grandchild = tree.create([A, B, C], Limits(cpu_millis=2000))
    seen = []
    for millis in (100, 3000, 1000, None):
        parent.set_limits(Limits(cpu_millis=millis))
        seen.append(in_force(tree, grandchild))
    assert seen == [PERIOD_USEC // 10, 2 * PERIOD_USEC, PERIOD_USEC, 2 * PERIOD_USEC]


def test_what_was_asked_for_survives_the_daemon(tree: CgroupTree) -> None:
    need_v1(tree, "cpu")
    tree.create([A], Limits(cpu_millis=500))
    tree.create([A, B], Limits(cpu_millis=2000))
    later = CgroupTree(ROOT, hierarchies=tree.hierarchies)
    later.open([A]).set_limits(Limits(cpu_millis=4000))
    assert in_force(later, later.open([A, B])) == 2 * PERIOD_USEC


def test_many_changes_at_once_never_meet(tree: CgroupTree) -> None:
    """On version 1 a quota above its parent's would be EINVAL."""
    need(tree, "cpu")
    parent, child = tree.create([A], Limits(cpu_millis=500)), tree.create([A, B], Limits(cpu_millis=400))
    failures: list[BaseException] = []

    def change(group: Cgroup) -> None:
        try:
            for millis in (100, 1000, 50, 2000, 300) * 5:
                group.set_limits(Limits(cpu_millis=millis))
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=change, args=(group,)) for group in (parent, child)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.timing
def test_a_busy_container_gets_its_share(tree: CgroupTree, processes: Processes) -> None:
    need(tree, "cpu")
    group = tree.create([A], Limits(cpu_millis=200))

    def spin() -> None:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            pass

    assert processes.run(group, spin) == 0
    used = group.stats().cpu_usec
    assert used is not None
    assert used < 400_000


def test_stats_tell_what_is_used(tree: CgroupTree, processes: Processes) -> None:
    need(tree, "memory", "pids")
    parent, child = tree.create([A], Limits()), tree.create([A, B], Limits())
    ready, told = os.pipe()

    def use_and_stay() -> None:
        use_memory(8 * MIB)
        os.write(told, b"!")
        signal.pause()

    processes.start(child, use_and_stay)
    os.read(ready, 1)
    os.close(ready)
    os.close(told)
    stats = parent.stats()
    assert stats.pids == 1
    assert stats.memory_bytes is not None
    assert stats.memory_bytes > 0
    assert stats.cpu_usec is not None
    assert stats.cpu_usec > 0
