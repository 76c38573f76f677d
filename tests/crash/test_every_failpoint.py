"""At every step of every verb: the daemon is killed, the launcher is killed, the step fails, the step is slow.

    start with the failpoint armed -> one walk through all verbs, whatever fails -> kill -9, if it still runs
    -> start without it -> record and kernel agree, what was acknowledged is there, everything can be destroyed
    -> nothing is left

A walk touches each verb, so each failpoint is met at least once; `test_the_walk_meets_every_failpoint` sees to that.
"""

import io
import os
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import pytest

from sysproc.storage.vsf.disk import read_disk
from sysproc_client import Client, SysprocError
from tests.crash.failpoints import all_failpoints
from tests.e2e.daemon import RunningDaemon
from tests.waiting import wait_until

FAILPOINTS = all_failpoints()
# A root of a size that none had before is grown, and its template kept.
SIZES = count(1100)
# There the process sees the container's files only: it cannot touch ours. The other actions work.
NO_FILES = {"inside.after_pivot", "volumes.attach.before_move"}


def small_tar() -> io.BytesIO:
    """An image that is quickly unpacked."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        entry = tarfile.TarInfo("file")
        entry.size = 5
        archive.addfile(entry, io.BytesIO(b"hello"))
    made.seek(0)
    return made


@contextmanager
def whatever_fails() -> Iterator[None]:
    """The service may die or refuse here; what it has acknowledged counts, the rest does not."""
    with suppress(SysprocError, OSError, ConnectionError):
        yield


def walk(endpoint: str, acknowledged: dict[str, str]) -> None:
    """All verbs once. acknowledged: id and state of containers, as the service has said last."""
    with Client(endpoint, patience=0) as client:
        with whatever_fails():
            client.images.import_("small", small_tar())
        with whatever_fails():
            client.images.delete("small")
        with whatever_fails():
            top = client.create(name="top")
            acknowledged[top.id] = "running"
            child = client.create(parent=top, size=f"{next(SIZES)}M")
            acknowledged[child.id] = "running"
            with whatever_fails():
                top.run(["true"], timeout=20)
            with whatever_fails():
                top.update(pids=64)
            for verb, state in (("freeze", "frozen"), ("thaw", "running"), ("stop", "stopped"), ("start", "running")):
                acknowledged.pop(child.id, None)
                child.stop(grace=0) if verb == "stop" else getattr(child, verb)()
                acknowledged[child.id] = state
            doomed = client.create(parent=top)
            acknowledged.pop(child.id, None)
            child.destroy()
            doomed.destroy()
        with whatever_fails():
            walk_volumes(client)


def walk_volumes(client: Client) -> None:
    """Those of the host and those of a container that goes; a filesystem of a size that none had is made."""
    with whatever_fails():
        volume = client.volumes.create("data", size=f"{next(SIZES)}M")
        with whatever_fails():
            volume.grow(f"{next(SIZES)}M")
        volume.delete()
    owner = client.create(name="owner")
    for policy in ("delete", "reparent"):
        volume = client.volumes.create(policy, size="16M", owner=owner, on_destroy=policy)
        with whatever_fails():
            volume.mount(owner, "/data")
            client.volumes.unmount(owner, "/data")
            volume.mount(owner, "/data")
    owner.destroy()


def check_agreement(client: Client, acknowledged: dict[str, str]) -> None:
    """What was acknowledged is there in that state; what runs can be used; nothing hangs in between."""
    found = {box.id: box for box in client.list()}
    for container_id, state in acknowledged.items():
        assert found[container_id].state == state
    for box in found.values():
        assert box.state in ("running", "stopped", "frozen")
        if box.state == "running":
            assert box.run(["true"], timeout=30).exit_code == 0


def check_volumes(client: Client, daemon: RunningDaemon) -> None:
    """Each that is recorded has a file of its size, whose last filesystem has its own; there is no other file."""
    found = [(one.size, one.filesystems[-1].uuid, one.filesystems[-1].size_bytes) for one in client.volumes.list()]
    there = []
    for path in (daemon.state_dir / "volumes").iterdir():
        with path.open("rb") as file:
            last = read_disk(file.fileno())[-1]
        assert last.contents is not None and last.contents.size_bytes == last.size_bytes
        there.append((path.stat().st_size, last.contents.uuid, last.size_bytes))
    assert sorted(found) == sorted(there)


def recover(daemon: RunningDaemon, acknowledged: dict[str, str]) -> None:
    """kill -9, start again, look, destroy all."""
    daemon.restart(environment={"SYSPROC_FAILPOINTS": ""})
    with Client(daemon.endpoint) as client:
        check_agreement(client, acknowledged)
        for box in client.list():
            if not box.parent_id:
                box.destroy()
        check_volumes(client, daemon)
        for volume in client.volumes.list():
            volume.delete()
        for image in client.images.list():
            if image.name != "busybox":
                client.images.delete(image.name)


def armed(daemon: RunningDaemon, terms: str) -> None:
    """Daemon and launcher anew, with these failpoints."""
    if daemon.alive():
        daemon.kill9()
    daemon.kill_launcher()
    daemon.start(environment={"SYSPROC_FAILPOINTS": terms}, wait=False)
    with suppress(AssertionError):
        wait_until(lambda: not daemon.alive() or daemon.endpoint_answers(), "it answers or has died", 20)


@pytest.mark.parametrize("action", ["kill", "raise"])
@pytest.mark.parametrize("failpoint", FAILPOINTS)
def test_after_a_failure_at_any_step_nothing_is_left_or_lost(
    daemon: RunningDaemon, nothing_is_left: None, failpoint: str, action: str
) -> None:
    acknowledged: dict[str, str] = {}
    armed(daemon, f"{failpoint}={action}")
    walk(daemon.endpoint, acknowledged)
    recover(daemon, acknowledged)


def test_all_steps_may_be_slow(daemon: RunningDaemon, nothing_is_left: None) -> None:
    acknowledged: dict[str, str] = {}
    armed(daemon, ";".join(f"{name}=3*delay(0.2)" for name in FAILPOINTS))
    walk(daemon.endpoint, acknowledged)
    assert acknowledged
    recover(daemon, acknowledged)


@pytest.mark.parametrize("failpoint", [name for name in FAILPOINTS if name not in NO_FILES])
def test_after_the_launcher_dies_at_any_step_nothing_is_left_or_lost(
    daemon: RunningDaemon, nothing_is_left: None, markers: Path, failpoint: str
) -> None:
    marker, acknowledged = markers / "here", dict[str, str]()
    armed(daemon, f"{failpoint}=1*block({marker})")
    walking = threading.Thread(target=walk, args=(daemon.endpoint, acknowledged))
    walking.start()
    while walking.is_alive() and not marker.exists():
        time.sleep(0.005)
    daemon.kill_launcher()

    def over() -> bool:
        """Each forked child stops there once: after the first they are let go."""
        marker.unlink(missing_ok=True)
        return not walking.is_alive()

    wait_until(over, "the walk is over", 120)
    recover(daemon, acknowledged)


def test_the_walk_meets_every_failpoint(daemon: RunningDaemon, nothing_is_left: None, markers: Path) -> None:
    acknowledged: dict[str, str] = {}
    names = [name for name in FAILPOINTS if name not in NO_FILES]
    terms = ";".join(f"{name}=touch({markers}/{name})" for name in names)
    armed(daemon, terms)
    walk(daemon.endpoint, acknowledged)
    daemon.restart(environment={"SYSPROC_FAILPOINTS": terms})
    recover(daemon, acknowledged)
    assert sorted(set(names) - set(os.listdir(markers))) == []
