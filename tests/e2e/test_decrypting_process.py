"""A volume that a process decrypts, as always where the kernel has no dm-crypt: what happens when it is killed."""

import os
import signal
import sqlite3
from collections.abc import Iterator

import pytest

from sysproc_client import Client, Container, FailedPrecondition
from tests.e2e.daemon import RunningDaemon
from tests.e2e.encrypted import SECRET, needs_fuse, volume_processes
from tests.e2e.inside import says
from tests.waiting import wait_until

pytestmark = needs_fuse


@pytest.fixture(scope="module")
def daemon() -> Iterator[RunningDaemon]:
    with RunningDaemon(options=("--decrypt-by=process",)) as running, Client(running.endpoint) as client:
        client.create(image="busybox").destroy()
        yield running


def kill_process(daemon: RunningDaemon) -> None:
    (pid,) = volume_processes(daemon)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not volume_processes(daemon), "it is gone")


def events(daemon: RunningDaemon) -> list[str]:
    with sqlite3.connect(daemon.state_dir / "sysproc.db") as database:
        found = database.execute("SELECT kind FROM events WHERE kind IN ('volume.unlocked', 'volume.broken')")
        return [kind for (kind,) in found]


@pytest.mark.parametrize("encrypt", ["fs", "whole"])
def test_its_process_is_killed_and_that_is_told_and_nothing_synced_is_lost(
    client: Client, daemon: RunningDaemon, box: Container, encrypt: str
) -> None:
    before = len(events(daemon))
    data = client.volumes.create("data", size="48M", encrypt=encrypt, secret=SECRET)
    data.mount(box, "/data", secret=SECRET)
    says(box, "echo kept | dd of=/data/file conv=fsync")
    kill_process(daemon)
    assert box.run(["dd", "if=/dev/zero", "of=/data/new", "bs=4096", "count=1", "conv=fsync"]).exit_code != 0
    wait_until(lambda: events(daemon)[before:] == ["volume.unlocked", "volume.broken"], "it is told")
    assert (data.refresh().broken, data.unlocked) == (True, False)
    with pytest.raises(FailedPrecondition) as refused:
        data.mount(box, "/again", secret=SECRET)
    assert refused.value.reason == "VOLUME_BROKEN"
    data.lock(force=True)
    assert not data.refresh().broken
    data.mount(box, "/data", secret=SECRET)
    assert says(box, "cat /data/file; echo more >/data/more") == b"kept\n"


def test_what_was_killed_while_the_daemon_was_away_is_told_once_when_it_comes_back(
    client: Client, daemon: RunningDaemon, box: Container
) -> None:
    before = len(events(daemon))
    data = client.volumes.create("data", size="48M", encrypt="fs", secret=SECRET)
    data.mount(box, "/data", secret=SECRET)
    wait_until(lambda: len(events(daemon)) > before, "that it is open is told")
    daemon.kill9()
    kill_process(daemon)
    for _ in range(2):
        daemon.restart()
        assert data.refresh().broken
        assert events(daemon)[before:] == ["volume.unlocked", "volume.broken"]
    client.volumes.unmount(box, "/data", force=True)
    data.mount(box, "/data", secret=SECRET)
    daemon.restart()
    kill_process(daemon)
    wait_until(lambda: events(daemon)[before:].count("volume.broken") == 2, "who was found again is watched")
