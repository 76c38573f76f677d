"""At every step of every verb: the daemon is killed, the launcher is killed, the step fails, the step is slow.

once: which failpoints does each walk meet (`tests.crash.walks`); each of all is met by one at least
start with the failpoint armed -> the walks that meet it, whatever fails -> kill -9, if it still runs
-> start without it -> record and kernel agree, what was acknowledged is there, everything can be destroyed
-> nothing is left
"""

import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sysproc.compression import READ_ONLY
from sysproc.storage.vsf.disk import read_disk
from sysproc_client import Client
from tests.crash.conftest import arm
from tests.crash.failpoints import all_failpoints
from tests.crash.walks import WALKS, Acknowledged, walk
from tests.e2e.daemon import RunningDaemon
from tests.waiting import wait_until

# The first test waits for all walks (`meetings`).
pytestmark = pytest.mark.timeout(900)
FAILPOINTS = all_failpoints()
# There the process sees the container's files only: it cannot touch ours. The other actions work.
NO_FILES = {"inside.after_pivot": ["containers"], "volumes.attach.before_move": ["mounts"]}
OF_ALL_KINDS = ("jobs.", "launcher.", "storage.", "volumes.make.")


@dataclass
class Meetings:
    """Which walks come to a failpoint, by its name; which ones every start comes to."""

    walks: dict[str, list[str]]
    at_start: set[str] = field(default_factory=set)

    def telling(self, failpoint: str) -> list[str]:
        """The walks to be gone. What many begin with is the same in all; a job, or a new file, is another in each."""
        met = self.walks[failpoint]
        return met if failpoint.startswith(OF_ALL_KINDS) else met[:2]


@pytest.fixture(scope="module")
def meetings(daemon: RunningDaemon) -> Meetings:
    """A start, then each walk, and the start after it, with all failpoints marked."""
    found = Meetings({name: list(walks) for name, walks in NO_FILES.items()})
    for name in WALKS:
        markers = fresh_markers(daemon)
        arm(daemon, ";".join(f"{one}=touch({markers}/{one})" for one in FAILPOINTS if one not in NO_FILES))
        begin_anew(daemon)
        found.at_start |= set(os.listdir(markers))
        acknowledged: Acknowledged = {}
        walk(daemon.endpoint, acknowledged, [name])
        daemon.restart()
        recover(daemon, acknowledged)
        for failpoint in os.listdir(markers):
            found.walks.setdefault(failpoint, []).append(name)
    return found


def check_agreement(client: Client, acknowledged: Acknowledged) -> None:
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
        assert last.contents is not None
        assert last.contents.size_bytes == last.size_bytes or last.contents.kind in READ_ONLY
        there.append((path.stat().st_size, last.contents.uuid, last.size_bytes))
    assert sorted(found) == sorted(there)


def recover(daemon: RunningDaemon, acknowledged: Acknowledged) -> None:
    """kill -9, start again, look, destroy all."""
    arm(daemon, "")
    daemon.restart()
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


def fresh_markers(daemon: RunningDaemon) -> Path:
    """An empty directory in which also what has left the host's users can make files."""
    directory = daemon.directory / "markers"
    directory.mkdir(exist_ok=True)
    daemon.directory.chmod(0o711)
    directory.chmod(0o777)
    for file in directory.iterdir():
        file.unlink()
    return directory


def begin_anew(daemon: RunningDaemon) -> None:
    """Daemon and launcher; what is armed may end them at once."""
    if daemon.alive():
        daemon.kill9()
    daemon.kill_launcher()
    daemon.start(wait=False)
    with suppress(AssertionError):
        wait_until(lambda: not daemon.alive() or daemon.endpoint_answers(), "it answers or has died", 20)


@pytest.mark.parametrize("action", ["kill", "raise"])
@pytest.mark.parametrize("failpoint", FAILPOINTS)
def test_after_a_failure_at_any_step_nothing_is_left_or_lost(
    daemon: RunningDaemon, meetings: Meetings, nothing_is_left: None, failpoint: str, action: str
) -> None:
    acknowledged: Acknowledged = {}
    arm(daemon, f"{failpoint}={action}")
    if failpoint in meetings.at_start:
        begin_anew(daemon)
    walk(daemon.endpoint, acknowledged, meetings.telling(failpoint))
    recover(daemon, acknowledged)


@pytest.mark.parametrize("name", WALKS)
def test_all_steps_may_be_slow(daemon: RunningDaemon, nothing_is_left: None, name: str) -> None:
    acknowledged: Acknowledged = {}
    arm(daemon, ";".join(f"{one}=3*delay(0.2)" for one in FAILPOINTS))
    begin_anew(daemon)
    walk(daemon.endpoint, acknowledged, [name])
    recover(daemon, acknowledged)


@pytest.mark.parametrize("failpoint", [name for name in FAILPOINTS if name not in NO_FILES])
def test_after_the_launcher_dies_at_any_step_nothing_is_left_or_lost(
    daemon: RunningDaemon, meetings: Meetings, nothing_is_left: None, failpoint: str
) -> None:
    marker, acknowledged = fresh_markers(daemon) / "here", Acknowledged()
    arm(daemon, f"{failpoint}=1*block({marker})")
    if failpoint in meetings.at_start:
        begin_anew(daemon)
    walking = threading.Thread(target=walk, args=(daemon.endpoint, acknowledged, meetings.walks[failpoint][:1]))
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


def test_the_walks_meet_every_failpoint(meetings: Meetings) -> None:
    assert sorted(set(FAILPOINTS) - set(meetings.walks)) == []
