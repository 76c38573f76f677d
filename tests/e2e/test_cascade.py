"""Destroying trees: whole, at once, deepest first; whatever the members do, whoever calls meanwhile, whoever dies.

What takes so long that one waits for a limit is marked slow. In which order members go is in
`tests.unit.test_deepest_first`.
"""

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from nightos.sysproc.v1.process_service_pb2 import ExecRequest
from sysproc_client import Client, Container, FailedPrecondition, NotFound, Unavailable
from tests.e2e.daemon import RunningDaemon
from tests.waiting import wait_until

FIFREEZE, FITHAW = 0xC0045877, 0xC0045878
REFUSALS = (FailedPrecondition, NotFound)


def started(box: Container, script: str) -> Iterator[object]:
    """A shell that has printed `ready`; the rest of its events."""
    events = iter(box.exec(["sh", "-c", script], stdin=False, drop_oldest=True))
    assert b"ready" in next(events).data
    return events


def host_pids(box: Container) -> list[int]:
    """The processes of a container but its init, as the host numbers them."""
    return [one.host_pid for one in box.ps() if one.pid != 1]


def state_of(pid: int) -> str:
    """The letter that ps shows."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def below(client: Client, top: Container, count: int) -> list[Container]:
    """Two levels of containers below one, three in each group."""
    middles = [client.create(parent=top) for _ in range(count)]
    return middles + [client.create(parent=middle) for middle in middles for _ in range(2)]


@contextmanager
def disk_sleep(box: Container) -> Iterator[Callable[[], None]]:
    """A process of the container waits in the kernel, and no signal ends it: its root's filesystem is frozen.

    Yields what lets it go on.
    """
    started(box, "echo ready; while :; do echo x > /written; done")
    init = next(one.host_pid for one in box.ps() if one.pid == 1)
    root = os.open(f"/proc/{init}/root", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    frozen = True

    def thaw() -> None:
        nonlocal frozen
        if frozen:
            fcntl.ioctl(root, FITHAW, 0)
            os.close(root)
            frozen = False

    fcntl.ioctl(root, FIFREEZE, 0)
    try:
        wait_until(lambda: "D" in map(state_of, host_pids(box)), "it is stuck")
        yield thaw
    finally:
        thaw()


# -- what members do


def test_frozen_stopped_and_deaf_members_go_with_the_others(client: Client) -> None:
    top = client.create()
    frozen, stopped, deaf, idle = (client.create(parent=top) for _ in range(4))
    below_frozen = client.create(parent=frozen)
    frozen.freeze()
    started(stopped, "sleep 1000 & kill -STOP $!; echo ready; kill -STOP $$")
    started(deaf, "trap '' HUP INT QUIT TERM USR1 USR2 ALRM TSTP TTIN TTOU; echo ready; while :; do sleep 1; done")
    wait_until(lambda: "T" in map(state_of, host_pids(stopped)), "one is stopped")
    boxes = {box.id for box in (frozen, stopped, deaf, idle, below_frozen)}
    *gone, last = top.destroy()
    assert (set(gone), last) == (boxes, top.id)
    assert client.list() == []


def test_a_fork_bomb_goes_with_the_others(client: Client) -> None:
    top = client.create(pids=200)
    bomb = client.create(parent=top)
    client.create(parent=bomb)
    started(bomb, "echo ready; b() { sleep 1000 & b & b & }; while :; do b; done 2>/dev/null")
    wait_until(lambda: len(host_pids(bomb)) > 50, "it has forked a lot")
    assert len(top.destroy()) == 3


@pytest.mark.slow
def test_one_in_disk_sleep_holds_up_only_what_is_above_it_and_is_named(client: Client) -> None:
    top = client.create()
    stuck, other = client.create(parent=top), client.create(parent=top)
    below_stuck, below_other = client.create(parent=stuck), client.create(parent=other)
    with disk_sleep(below_stuck) as thaw:
        gone: list[str] = []
        with pytest.raises(Unavailable, match=below_stuck.id) as refused:
            gone.extend(top.destroying())
        assert (refused.value.reason, refused.value.message[:6]) == ("DESTROY_INCOMPLETE", "3 of 5")
        assert {box.id: box.state for box in client.list()} == dict.fromkeys(
            (top.id, stuck.id, below_stuck.id), "destroying"
        )
        thaw()
        assert top.destroy() == [below_stuck.id, stuck.id, top.id]
    assert {below_other.id, other.id}.isdisjoint(box.id for box in client.list())


def test_what_is_stuck_is_finished_by_a_later_start_which_it_does_not_prevent(
    client: Client, daemon: RunningDaemon
) -> None:
    top, bystander = client.create(), client.create()
    stuck, other = client.create(parent=top), client.create(parent=top)
    with disk_sleep(stuck) as thaw:
        assert next(top.destroying()) == other.id, "it is gone while the other is stuck"
        daemon.restart()
        with Client(daemon.endpoint) as again:
            assert {box.id for box in again.list()} == {top.id, stuck.id, bystander.id}
            assert again.get(bystander.id).run(["true"]).exit_code == 0
            daemon.kill9()
            thaw()
            daemon.start()
            wait_until(lambda: [box.id for box in again.list()] == [bystander.id], "the tree is gone")


# -- who calls meanwhile


def test_from_the_first_answer_on_nothing_of_the_tree_can_be_used(client: Client) -> None:
    top = client.create()
    middle, stopped = client.create(parent=top), client.create(parent=top, start=False)
    leaves = [client.create(parent=middle) for _ in range(30)]
    running = middle.exec(["sleep", "1000"], stdin=False, exec_id="sleeping")
    threading.Thread(target=lambda: list(running), daemon=True).start()
    wait_until(lambda: [one.exec_id for one in middle.execs()] == ["sleeping"], "it runs")
    destroying = top.destroying()
    first = next(destroying)
    attempts: list[Callable[[], object]] = [
        lambda: client.create(parent=top),
        lambda: client.create(parent=leaves[-1]),
        lambda: middle.run(["true"], timeout=20),
        lambda: attach(client, middle, "sleeping"),
        stopped.start,
        middle.freeze,
        middle.stop,
        lambda: middle.update(pids=64),
    ]
    for attempt in attempts:
        with pytest.raises(REFUSALS):
            attempt()
    assert {first, *destroying} == {box.id for box in (top, middle, stopped, *leaves)}


def attach(client: Client, box: Container, exec_id: str) -> None:
    """See a process that was started before, to its end."""
    request = ExecRequest(attach=ExecRequest.Attach(container=box.ref, exec_id=exec_id))
    for _ in client._connection.stream(client._processes.Exec(iter([request]))):
        continue


def creating(client: Client, parents: list[Container], begun: threading.Semaphore) -> list[str]:
    """Create below these in turn until refused; what was made."""
    made: list[str] = []
    while True:
        begun.release()
        try:
            made.append(client.create(parent=parents[len(made) % len(parents)]).id)
        except REFUSALS:
            return made


def test_creates_during_a_destroy_are_answered_and_destroyed_or_refused(client: Client) -> None:
    top = client.create()
    middle = client.create(parent=top)
    leaf = client.create(parent=middle)
    begun = threading.Semaphore(0)
    with ThreadPoolExecutor(6) as threads:
        storm: list[Future[list[str]]] = [
            threads.submit(creating, client, parents, begun) for parents in ([top], [leaf], [middle, leaf]) * 2
        ]
        for _ in range(18):
            begun.acquire()
        gone = top.destroy()
        made = {one for creates in storm for one in creates.result(60)}
    assert made | {top.id, middle.id, leaf.id} <= set(gone)
    assert client.list() == []


def test_a_create_that_is_half_way_below_a_dying_middle_is_refused(client: Client, daemon: RunningDaemon) -> None:
    marker = daemon.directory / "half-way"
    top, started_later = client.create(), client.create(start=False)
    middle = client.create(parent=top, start=False)
    rearm(daemon, f"build.after_root=1*block({marker})")
    try:
        with Client(daemon.endpoint) as again, ThreadPoolExecutor(2) as threads:
            half_way = threads.submit(again.create, parent=middle.id)
            wait_until(marker.exists, "the create is half way")
            destroyed = threads.submit(again.get(middle.id).destroy)
            wait_until(lambda: again.get(middle.id).state == "destroying", "the destroy has begun")
            marker.unlink()
            with pytest.raises(FailedPrecondition, match="destroying"):
                half_way.result(60)
            assert destroyed.result(60)[-1] == middle.id
            assert {box.id for box in again.list()} == {top.id, started_later.id}
    finally:
        marker.unlink(missing_ok=True)
        rearm(daemon, "")


def rearm(daemon: RunningDaemon, terms: str) -> None:
    """Daemon and launcher anew, with these failpoints."""
    daemon.kill9()
    daemon.kill_launcher()
    daemon.start(environment={"SYSPROC_FAILPOINTS": terms})


def test_destroys_of_top_middle_and_leaf_agree_on_what_is_gone(client: Client) -> None:
    top = client.create()
    middle = client.create(parent=top)
    leaves = [client.create(parent=middle) for _ in range(10)]
    meet = threading.Barrier(3)

    def destroy(box: Container) -> list[str] | None:
        meet.wait()
        try:
            return box.destroy()
        except NotFound:
            return None  # another one was quicker

    with ThreadPoolExecutor(3) as threads:
        by_leaf, by_middle, by_top = threads.map(destroy, (leaves[0], middle, top))
    everything = {box.id for box in (top, middle, *leaves)}
    assert by_top is not None and set(by_top) <= everything and by_top[-1] == top.id
    told = {one for answer in (by_leaf, by_middle, by_top) for one in answer or ()}
    assert told == everything
    assert client.list() == []


def test_of_a_large_tree_the_first_is_gone_long_before_the_last(client: Client) -> None:
    top = client.create()
    boxes = below(client, top, 12)
    destroying = top.destroying()
    first = next(destroying)
    assert first in {box.id for box in boxes}
    assert len(client.list()) > 1, "the others are there, when the first one is told of"
    *_, last = destroying
    assert last == top.id


# -- who dies


def test_a_destroy_that_a_crash_cuts_off_is_finished_at_the_next_start(client: Client, daemon: RunningDaemon) -> None:
    top, bystander = client.create(), client.create()
    below(client, top, 12)
    next(top.destroying())
    daemon.restart()
    with Client(daemon.endpoint) as again:
        wait_until(lambda: [box.id for box in again.list()] == [bystander.id], "the tree is gone")
