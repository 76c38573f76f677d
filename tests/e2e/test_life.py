"""The life of containers through the API: created, used, stopped, frozen, changed, destroyed; in trees."""

import re

import pytest

from sysproc_client import AlreadyExists, Client, Container, FailedPrecondition, InvalidArgument, NotFound
from tests.e2e.daemon import RunningDaemon
from tests.waiting import PATIENCE_S, wait_until


@pytest.mark.vm
def test_a_container_runs_is_found_and_goes(client: Client) -> None:
    box = client.create(image="busybox", name="web", memory="64M", cpus=0.5, pids=32, labels={"tier": "front"})
    assert re.fullmatch("[0-9a-f]{16}", box.id)
    assert (box.state, box.name, box.parent_id) == ("running", "web", "")
    assert client.get("web").id == client.get(box.id).id == box.id
    assert [one.id for one in client.list()] == [box.id]
    assert [one.id for one in client.list(labels={"tier": "front"})] == [box.id]
    assert box.destroy() == [box.id]
    assert client.list() == []
    with pytest.raises(NotFound, match="web"):
        client.get("web")


def test_the_limits_are_those_of_the_kernel(client: Client) -> None:
    box = client.create(memory="64M", pids=32)
    seen = box.run(
        ["sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null"]
    )
    # The own part of the tree is the leaf; the limit is held by the node above it, which nobody inside sees.
    assert seen.exit_code in (0, 1)
    forks = box.run(["sh", "-c", "for i in $(seq 100); do sleep 100 & done; wait"], timeout=20)
    assert b"fork" in forks.stderr


@pytest.mark.vm
def test_the_limits_of_a_stopped_parent_hold_for_its_children_and_change_for_them(client: Client) -> None:
    parent = client.create(pids=12, start=False)
    child = client.create(parent=parent)
    fork_20 = ["sh", "-c", "for i in $(seq 20); do sleep 1000 & done; kill $(jobs -p)"]
    assert b"fork" in child.run(fork_20, timeout=20).stderr
    parent.update(clear=["pids"])
    assert b"fork" not in child.run(fork_20, timeout=20).stderr
    parent.update(pids=12)
    assert b"fork" in child.run(fork_20, timeout=20).stderr


@pytest.mark.vm
def test_memory_beyond_the_limit_ends_the_process_not_the_host(client: Client) -> None:
    box = client.create(memory="32M")
    # One process that does little else: of several, the kernel may give each its code back for ever, and kill none.
    hog = box.run(["awk", 'BEGIN { text = "x"; while (1) text = text text }'], timeout=4 * PATIENCE_S)
    assert hog.exit_code or hog.signal
    assert box.run(["true"]).exit_code == 0, "the container lives on"
    assert client.get(box.id).message.oom_killed, "and tells of it at once"
    assert [one.message.oom_killed for one in client.list()] == [True]


def test_children_are_found_by_path_and_go_with_their_parent_deepest_first(client: Client) -> None:
    top = client.create(name="a")
    middle = client.create(name="b", parent=top)
    leaf = client.create(name="c", parent="a/b")
    other = client.create(name="d", parent=top)
    assert client.get("a/b/c").id == leaf.id
    assert client.path(leaf.id) == "a/b/c"
    assert {child.id for child in top.children()} == {middle.id, other.id}
    assert top.doomed() == [leaf.id, middle.id, other.id, top.id]
    first, *siblings, last = top.destroy()
    assert (first, set(siblings), last) == (leaf.id, {middle.id, other.id}, top.id)


def test_a_name_is_unique_among_siblings_only(client: Client) -> None:
    top = client.create(name="a")
    client.create(name="a", parent=top)
    with pytest.raises(AlreadyExists, match="named a"):
        client.create(name="a")


@pytest.mark.vm
def test_a_stopped_container_keeps_its_files_and_starts_again(client: Client) -> None:
    box = client.create()
    box.run(["sh", "-c", "echo kept > /root/file"])
    box.stop()
    assert (box.state, box.message.reason) == ("stopped", "stopped by request")
    assert box.message.exit.code == 0
    with pytest.raises(FailedPrecondition, match="stopped"):
        box.run(["true"])
    box.start()
    assert box.run(["cat", "/root/file"]).stdout == b"kept\n"


def test_a_process_that_ignores_sigterm_is_killed_after_the_grace(client: Client) -> None:
    box = client.create()
    stubborn = box.exec(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"], stdin=False)
    chunks = iter(stubborn)
    assert next(chunks).data == b"ready\n"
    box.stop(grace=0.2)
    assert box.state == "stopped"
    for _ in chunks:
        pass
    assert stubborn.ended is not None and stubborn.ended.signal == 9


def test_a_container_whose_init_dies_is_stopped_and_says_why(client: Client, daemon: RunningDaemon) -> None:
    box = client.create()
    init = next(one for one in box.ps() if one.pid == 1)
    import os

    os.kill(init.host_pid, 9)
    wait_until(lambda: box.refresh().state == "stopped", "the end was noticed")
    assert "signal 9" in box.message.reason


@pytest.mark.vm
def test_a_frozen_container_does_nothing_until_it_is_thawed(client: Client) -> None:
    box = client.create()
    counting = box.exec(["sh", "-c", "while :; do echo x; done"], stdin=False, drop_oldest=True)
    next(iter(counting))
    box.freeze()
    assert box.state == "frozen"
    with pytest.raises(FailedPrecondition, match="frozen"):
        box.run(["true"])
    box.thaw()
    assert box.run(["true"]).exit_code == 0
    counting.signal(9)
    counting.wait()


def test_below_a_frozen_container_nothing_starts_and_nobody_waits_for_it(client: Client) -> None:
    top = client.create()
    child, idle = client.create(parent=top), client.create(parent=top, start=False)
    top.freeze()
    attempts = (lambda: child.run(["true"]), lambda: client.create(parent=top), idle.start)
    for attempt in attempts:
        with pytest.raises(FailedPrecondition, match="frozen"):
            attempt()
    assert {one.id for one in client.list()} == {top.id, child.id, idle.id}
    top.thaw()
    assert child.run(["true"]).exit_code == 0
    idle.start()


def test_a_frozen_tree_is_destroyed_at_once(client: Client) -> None:
    top = client.create()
    client.create(parent=top).freeze()
    top.freeze()
    assert len(top.destroy()) == 2


@pytest.mark.vm
def test_limits_and_labels_change_on_the_living_container(client: Client) -> None:
    box = client.create(memory="64M", labels={"a": "1"})
    before = box.message.etag
    box.update(memory="48M", pids=16, labels={"b": "2"})
    again = client.get(box.id).message
    assert (again.limits.memory_bytes, again.limits.pids, dict(again.labels)) == (48 << 20, 16, {"b": "2"})
    assert again.etag != before
    box.update(clear=["pids"])
    assert not client.get(box.id).message.limits.HasField("pids")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"memory": 1}, "memory_bytes"),
        ({"cpus": 0.001}, "cpu_millis"),
        ({"pids": 1}, "pids"),
        ({"memory": 2**63}, "memory_bytes"),
        ({"size": 1}, "root"),
        ({"size": 2**60}, "root"),
        ({"name": "Not A Name"}, "name"),
        ({"name": "0123456789abcdef"}, "name"),
        ({"name": "a/b"}, "name"),
        ({"hostname": "a b"}, "hostname"),
        ({"image": "../etc"}, "image"),
        ({"env": {"A=B": "c"}}, "environment"),
        ({"env": {"A": "b\0c"}}, "environment"),
        ({"labels": {"": "c"}}, "labels"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_field_and_leaves_nothing(
    client: Client, given: dict[str, object], words: str
) -> None:
    with pytest.raises(InvalidArgument, match=words):
        client.create(**given)  # type: ignore[arg-type]  # that is the point
    assert client.list() == []


def test_a_missing_image_is_named(client: Client) -> None:
    with pytest.raises(NotFound, match="nosuch"):
        client.create(image="nosuch")


def test_the_same_request_id_makes_one_container(client: Client) -> None:
    request = "6f9619ff-8b86-d011-b42d-00cf4fc964ff"
    first = client.create(name="once", request_id=request)
    assert client.create(name="once", request_id=request).id == first.id
    with pytest.raises(InvalidArgument, match="another request"):
        client.create(name="twice", request_id=request)
    assert len(client.list()) == 1


def test_a_container_that_is_not_started_has_no_process_until_it_is(client: Client) -> None:
    box = client.create(start=False)
    assert box.state == "stopped"
    box.start()
    assert box.run(["true"]).exit_code == 0


def inside(box: Container, script: str) -> str:
    return box.run(["sh", "-c", script]).stdout.decode()


def test_the_container_has_its_names_and_its_loopback(client: Client) -> None:
    box = client.create(name="web", hostname="front")
    assert inside(box, "hostname").strip() == "front"
    assert "64 bytes from 127.0." in inside(box, "ping -c1 -w5 front")
    assert "LOOPBACK,UP" in inside(box, "ip link show lo")
    assert "container=sysproc" in inside(box, "env")


def test_two_containers_run_with_different_uids_of_the_host(client: Client) -> None:
    one, other = client.create(), client.create()
    assert inside(one, "cat /proc/self/uid_map") != inside(other, "cat /proc/self/uid_map")
