"""Freezing, thawing and killing: frozen trees, forking trees, deep and wide ones."""

import mmap
import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from sysproc.errors import NotFound
from sysproc.isolation.cgroups import CgroupTree, Limits
from tests.kernel.isolation.cgroups.conftest import A, B, C, Processes

pytestmark = pytest.mark.vm


@pytest.fixture
def shared() -> Iterator[mmap.mmap]:
    """Eight bytes that processes share: a counter."""
    with mmap.mmap(-1, 8) as memory:
        yield memory


def count(shared: mmap.mmap) -> int:
    return int.from_bytes(shared[:8], "little")


def counting(shared: mmap.mmap) -> Callable[[], None]:
    def work() -> None:
        while True:
            shared[:8] = (count(shared) + 1).to_bytes(8, "little")

    return work


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


def advances(shared: mmap.mmap) -> bool:
    """Whether the counter moves while this process gives way some hundred times."""
    before = count(shared)
    for _ in range(300):
        os.sched_yield()
        time.sleep(0.0001)
    return count(shared) != before


def test_a_frozen_container_does_nothing_until_it_is_thawed(
    tree: CgroupTree, processes: Processes, shared: mmap.mmap
) -> None:
    group = tree.create([A], Limits())
    processes.start(group, counting(shared))
    wait_until(lambda: count(shared) > 0)
    group.freeze()
    assert group.frozen
    assert not advances(shared)
    group.thaw()
    wait_until(lambda: advances(shared))
    assert not group.frozen


def test_freezing_stops_what_is_below(tree: CgroupTree, processes: Processes, shared: mmap.mmap) -> None:
    parent, child = tree.create([A], Limits()), tree.create([A, B], Limits())
    processes.start(child, counting(shared))
    wait_until(lambda: count(shared) > 0)
    parent.freeze()
    assert child.frozen
    assert not advances(shared)


def test_a_child_that_was_frozen_by_itself_stays_so(tree: CgroupTree, processes: Processes, shared: mmap.mmap) -> None:
    parent, child = tree.create([A], Limits()), tree.create([A, B], Limits())
    processes.start(child, counting(shared))
    child.freeze()
    parent.freeze()
    parent.thaw()
    assert (parent.frozen, child.frozen) == (False, True)
    assert not advances(shared)


def test_who_joins_a_frozen_container_is_frozen(tree: CgroupTree, processes: Processes, shared: mmap.mmap) -> None:
    group = tree.create([A], Limits())
    processes.start(group)
    group.freeze()
    processes.start(group, counting(shared))
    assert not advances(shared)


def test_freezing_twice_is_freezing_once(tree: CgroupTree, processes: Processes) -> None:
    group = tree.create([A], Limits())
    processes.start(group)
    group.freeze()
    group.freeze()
    group.thaw()
    group.thaw()
    assert not group.frozen


def test_without_cgroups_there_is_nothing_to_freeze_or_kill(tree: CgroupTree) -> None:
    group = tree.open([A])
    with pytest.raises(NotFound):
        group.freeze()
    group.thaw()
    group.kill()
    group.kill_own()
    assert (group.frozen, group.populated, group.pids(), group.exists) == (False, False, [], False)


def test_a_restarted_container_is_not_frozen(tree: CgroupTree, processes: Processes, shared: mmap.mmap) -> None:
    parent, child = tree.create([A], Limits()), tree.create([A, B], Limits())
    processes.start(child, counting(shared))
    parent.freeze()
    parent.remove()
    wait_until(lambda: advances(shared))
    parent.freeze()
    tree.create([A], Limits())
    wait_until(lambda: advances(shared))


def test_killing_takes_the_frozen_with_it(tree: CgroupTree, processes: Processes) -> None:
    parent, child = tree.create([A], Limits()), tree.create([A, B], Limits())
    pids = [processes.start(group) for group in (parent, child)]
    child.freeze()
    parent.freeze()
    parent.kill()
    assert [processes.end(pid) for pid in pids] == [-signal.SIGKILL] * 2


def test_killing_its_own_spares_those_below(tree: CgroupTree, processes: Processes) -> None:
    parent, child = tree.create([A], Limits()), tree.create([A, B], Limits())
    own, below = processes.start(parent), processes.start(child)
    parent.kill_own()
    assert processes.end(own) == -signal.SIGKILL
    assert child.pids() == [below]


def test_killing_spares_siblings(tree: CgroupTree, processes: Processes) -> None:
    one, other = tree.create([A], Limits()), tree.create([B], Limits())
    doomed, spared = processes.start(one), processes.start(other)
    one.kill()
    assert processes.end(doomed) == -signal.SIGKILL
    assert other.pids() == [spared]


def run_away() -> None:
    """A process that is never caught where it was seen: it forks and ends, again and again."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.setsid()
    while True:
        if os.fork():
            os._exit(0)


@pytest.mark.parametrize("frozen", [False, True])
def test_who_forks_faster_than_one_reads_is_killed(tree: CgroupTree, processes: Processes, frozen: bool) -> None:
    parent, child = tree.create([A], Limits()), tree.create([A, B], Limits())
    for group in (parent, child):
        for _ in range(4):
            processes.start(group, run_away)
    if frozen:
        parent.freeze()
    parent.kill()
    assert parent.wait_empty(10)
    assert child.wait_empty(10)


def test_a_hundred_nested_containers_die_at_once(tree: CgroupTree, processes: Processes) -> None:
    path = [f"{depth:016x}" for depth in range(1, 101)]
    nested = [tree.create(path[:depth], Limits()) for depth in range(1, 101)]
    pids = [processes.start(group) for group in nested]
    nested[0].kill()
    assert {processes.end(pid) for pid in pids} == {-signal.SIGKILL}
    for group in reversed(nested):
        group.remove()
    assert tree.leftovers() == []


def test_waiting_ends_when_the_last_one_ends(tree: CgroupTree, processes: Processes) -> None:
    group = tree.create([A], Limits())
    ready, go = os.pipe()
    processes.start(group, lambda: os.read(ready, 1))
    assert not group.wait_empty(0.01)
    os.write(go, b"!")
    assert group.wait_empty(10)
    assert not group.populated
    os.close(ready)
    os.close(go)


def test_paths_of_three_levels(tree: CgroupTree, processes: Processes) -> None:
    for depth in (1, 2, 3):
        processes.start(tree.create([A, B, C][:depth], Limits()))
    assert [len(tree.open(path).pids()) for path in tree.leftovers()] == [1, 1, 1]
    tree.open([A]).kill()
    for path in reversed(tree.leftovers()):
        tree.open(path).remove()
