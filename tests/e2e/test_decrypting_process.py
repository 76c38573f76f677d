"""A volume that a process decrypts, as always where the kernel has no dm-crypt: what happens when it is killed."""

import errno
import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from sysproc.linux.files import syncfs
from sysproc_client import Client, Container, FailedPrecondition, Volume
from tests.e2e.conftest import Sysproc
from tests.e2e.daemon import RunningDaemon
from tests.e2e.encrypted import SECRET, needs_fuse, volume_processes
from tests.e2e.inside import init_of, says
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


REFUSED = (errno.EIO, errno.EROFS)
# What is written and synced before: large, small and renamed files, and the sums that say so.
FILLED = """
cd /data; head -c 3000000 /dev/urandom >large; mkdir d; for n in $(seq 50); do echo $n >d/$n; done; mv d/50 d/last
find . -type f ! -name sums -exec sha256sum {} + >sums; echo old >file; sync
"""


@contextmanager
def refused() -> Iterator[None]:
    """I/O that must not succeed: an error of the disk, or a filesystem that is read-only by now."""
    with pytest.raises(OSError) as failure:
        yield
    assert failure.value.errno in REFUSED


def write_and_sync(fd: int) -> None:
    os.pwrite(fd, b"new\n", 0)
    os.fsync(fd)


def is_free(volume: Volume) -> bool:
    return not volume.refresh().attached_to


FILESYSTEMS = [
    ("ext4", "48M", "fs", "lock"),
    ("ext4", "48M", "whole", "umount"),
    ("btrfs", "160M", "fs", "umount"),
    ("xfs", "352M", "whole", "lock"),
    ("xfs", "352M", "fs", "umount"),
]


@pytest.mark.parametrize(("fs", "size", "encrypt", "way"), FILESYSTEMS)
def test_after_it_was_killed_nothing_can_be_written_and_everything_synced_comes_back(
    client: Client, box: Container, daemon: RunningDaemon, fs: str, size: str, encrypt: str, way: str
) -> None:
    if shutil.which(f"mkfs.{fs}", path="/usr/sbin:/sbin") is None:
        pytest.skip(f"mkfs.{fs} is not installed")
    data = client.volumes.create("data", fs=fs, size=size, encrypt=encrypt, secret=SECRET)
    data.mount(box, "/data", secret=SECRET)
    says(box, FILLED)
    says(box, "cd /data/d; sleep 1000 <>/data/file >/dev/null 2>&1 &")
    fd = os.open(f"/proc/{init_of(box)}/root/data/file", os.O_RDWR)
    try:
        os.pwrite(fd, b"never acknowledged\n", 0)
        kill_process(daemon)
        for _ in range(3):
            with refused():
                write_and_sync(fd)
        with refused():
            syncfs(fd)
    finally:
        os.close(fd)
    for script in ("echo x | dd of=/data/new conv=fsync", "echo x | dd of=/data/d/1 conv=notrunc,fsync"):
        assert box.run(["sh", "-c", script]).exit_code != 0
    if way == "lock":
        data.lock(force=True)
    else:
        client.volumes.unmount(box, "/data", force=True)
    wait_until(partial(is_free, data), "nothing holds it")
    data.mount(box, "/data", secret=SECRET)
    says(box, "cd /data; sha256sum -c sums; test $(ls d | wc -l) = 50; echo more >more; sync")
    client.volumes.unmount(box, "/data")
    wait_until(lambda: not data.refresh().unlocked, "it is locked")
    assert [one.result for one in data.check(secret=SECRET)] == ["clean"]


def test_that_it_was_killed_is_in_the_log_and_shown_by_the_command(
    client: Client, box: Container, daemon: RunningDaemon, sysproc: Sysproc
) -> None:
    data = client.volumes.create("data", size="48M", encrypt="fs", secret=SECRET)
    data.mount(box, "/data", secret=SECRET)
    kill_process(daemon)
    wait_until(lambda: "the process of an encrypted volume was killed" in daemon.log_text(), "it is in the log")
    assert json.loads(sysproc("volume", "inspect", "data", "-o", "json").stdout)["broken"] is True
    assert b"(broken)" in sysproc("volume", "list", "-o", "wide").stdout
    told = sysproc("mount", "box", "data", "/again", "--passphrase-file", "-", input=SECRET.encode())
    assert told.returncode != 0 and b"is broken" in told.stderr and b"volume lock" in told.stderr
    assert sysproc("volume", "lock", "data", "--force").returncode == 0
    assert json.loads(sysproc("volume", "inspect", "data", "-o", "json").stdout)["broken"] is False


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
