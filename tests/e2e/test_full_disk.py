"""A state directory on a disk that gets full: clear errors, nothing left behind, everything goes on afterwards.

The disk is a tmpfs of the test's own. What is full by a limit instead is in `tests.e2e.test_exec`.
"""

import errno
import gzip
import io
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from sysproc.linux.loop import LO_FLAGS_AUTOCLEAR, loop_configure
from sysproc.linux.mounts import MNT_DETACH, mount, umount2
from sysproc_client import Client, Container, LimitExceeded, SysprocError
from tests.archives import Archive
from tests.e2e.conftest import Sysproc
from tests.e2e.daemon import RunningDaemon
from tests.waiting import wait_until

DISK_BYTES = 96 << 20
LEFT_BYTES = 64 << 10


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small filesystem."""
    directory = tmp_path_factory.mktemp("disk")
    mount("tmpfs", directory, fstype="tmpfs", data=f"size={DISK_BYTES}")
    yield directory
    umount2(directory, MNT_DETACH)


@pytest.fixture(scope="module")
def daemon(disk: Path) -> Iterator[RunningDaemon]:
    """A daemon whose directories are on it."""
    before, tempfile.tempdir = tempfile.tempdir, str(disk)
    try:
        with RunningDaemon() as running, Client(running.endpoint) as client:
            client.create(image="busybox", overcommit=True).destroy()
            yield running
    finally:
        tempfile.tempdir = before


@pytest.fixture
def ballast(disk: Path) -> Iterator[Path]:
    """Takes what is free; removed afterwards."""
    file = disk / "ballast"
    yield file
    file.unlink(missing_ok=True)


def fill(ballast: Path, left: int = 0) -> None:
    """Leave only so many bytes free; the daemon may take or free some at the same time."""
    with ballast.open("wb") as file:

        def taken() -> bool:
            free = os.statvfs(ballast.parent)
            try:
                os.posix_fallocate(file.fileno(), 0, max(free.f_bavail * free.f_frsize - left, 4096))
            except OSError as failure:
                if failure.errno != errno.ENOSPC:
                    raise
                return False
            return True

        wait_until(taken, "the disk is full")


def test_a_create_without_room_says_so_and_leaves_nothing(client: Client, ballast: Path) -> None:
    fill(ballast)
    with pytest.raises(LimitExceeded, match=r"disk|space"):
        client.create(overcommit=True)
    ballast.unlink()
    assert client.list() == []
    client.create(overcommit=True).destroy()


def test_an_import_without_room_says_so_and_leaves_nothing(client: Client, ballast: Path, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(os.urandom(8 << 20))
    fill(ballast, left=4 << 20)
    with pytest.raises(LimitExceeded, match=r"disk|space"):
        client.images.import_("big", tmp_path)
    ballast.unlink()
    assert [image.name for image in client.images.list()] == ["busybox"]


def test_an_import_that_needs_more_room_unpacked_than_there_is_says_so(
    client: Client, ballast: Path, archive: Archive
) -> None:
    """It arrives compressed, and its image is a sparse file: only unpacking meets the end of the disk."""
    archive.add("big", b"x" * (40 << 20))
    fill(ballast, left=16 << 20)
    with pytest.raises(LimitExceeded, match=r"disk|space"):
        client.images.import_("big", io.BytesIO(gzip.compress(archive.bytes(), 1)))
    ballast.unlink()
    assert [image.name for image in client.images.list()] == ["busybox"]


@pytest.mark.parametrize("left", [0, LEFT_BYTES, 1 << 20])
@pytest.mark.parametrize("fs", ["ext4", "btrfs"])
def test_a_volume_without_room_says_so_and_leaves_nothing(
    client: Client, daemon: RunningDaemon, ballast: Path, fs: str, left: int
) -> None:
    if fs != "ext4" and shutil.which(f"mkfs.{fs}") is None:
        pytest.skip(f"mkfs.{fs} is not installed")
    size = f"{400 + left // 1024}M"  # no template is there of this one
    fill(ballast, left)
    made = None
    with suppress(LimitExceeded):
        made = client.volumes.create("data", size=size, fs=fs, overcommit=True)  # an empty one may just fit
    ballast.unlink()
    if made is not None:
        made.delete()
    assert client.volumes.list() == [] and os.listdir(daemon.state_dir / "volumes") == []
    client.volumes.create("data", size=size, fs=fs, overcommit=True).delete()


def test_a_volume_that_cannot_grow_for_want_of_room_is_as_it_was(
    client: Client, daemon: RunningDaemon, ballast: Path
) -> None:
    volume = client.volumes.create("data", size="400M", overcommit=True)
    (file,) = (daemon.state_dir / "volumes").iterdir()
    before = file.read_bytes()
    fill(ballast, LEFT_BYTES)
    with pytest.raises(LimitExceeded, match=r"disk|space"):
        volume.grow("600M")
    ballast.unlink()
    assert volume.refresh().size == 400 << 20 and file.read_bytes() == before
    assert volume.grow("600M").size == 600 << 20
    volume.delete()


FULL = "the host's disk is full"

# Small pieces, each synced: until one does not fit. A piece takes longer than the watch of the disk allows it to.
FILL = """
n=0
while why=$(dd if=/dev/zero of=/data/$n bs=16k count=1 conv=fsync 2>&1); do n=$((n+1)); done
echo "$why" >&2; echo $n
"""


def clean(file: Path) -> bool:
    """Whether fsck has nothing to say of the filesystem in a volume's file, once its journal is replayed."""
    with file.open("r+b") as opened:
        device_fd, device = loop_configure(opened.fileno(), offset=1 << 20, size=0, flags=LO_FLAGS_AUTOCLEAR)
    try:
        subprocess.run(["e2fsck", "-p", device], capture_output=True, check=False)
        return subprocess.run(["e2fsck", "-fn", device], capture_output=True, check=False).returncode == 0
    finally:
        os.close(device_fd)


def events(daemon: RunningDaemon) -> list[str]:
    """The kinds of all that were recorded of the host."""
    with closing(sqlite3.connect(f"file:{daemon.state_dir / 'sysproc.db'}?mode=ro", uri=True)) as database:
        return [
            kind for (kind,) in database.execute("SELECT kind FROM events WHERE subject = 'host' ORDER BY revision")
        ]


def test_a_disk_that_gets_full_is_enospc_inside_an_event_outside_and_no_damage(
    client: Client, daemon: RunningDaemon, ballast: Path
) -> None:
    box = client.create(overcommit=True)
    data = client.volumes.create("data", size="200M", overcommit=True)
    (file,) = (daemon.state_dir / "volumes").iterdir()
    data.mount(box, "/data")
    before = len(events(daemon))
    fill(ballast, left=24 << 20)
    result = box.run(["sh", "-c", FILL])
    assert b"No space left on device" in result.stderr
    wait_until(lambda: events(daemon)[before:] == ["disk.full"], "it is recorded")
    assert FULL in daemon.log_text()
    ballast.unlink()
    wait_until(lambda: events(daemon)[before:] == ["disk.full", "disk.room"], "there is room again")
    assert box.run(["sh", "-c", "rm /data/0; dd if=/dev/zero of=/data/0 bs=16k count=1 conv=fsync"]).exit_code == 0
    client.volumes.unmount(box, "/data")
    assert clean(file)
    data.mount(box, "/data")
    whole = box.run(["sh", "-c", "find /data -type f -size 16k | wc -l"])
    assert int(whole.stdout) == int(result.stdout)
    box.destroy()
    data.delete()


# What is in a file, where one has to be told of the room on the disk in another way.
KINDS: dict[str, dict[str, Any]] = {
    "xfs": {"fs": "xfs", "size": "320M"},
    "encrypted": {"encrypt": "fs", "secret": "a passphrase", "size": "200M"},
    "encrypted as a whole": {"encrypt": "whole", "secret": "a passphrase", "size": "200M"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_others_than_a_plain_ext4_are_told_of_the_room_on_the_disk(
    client: Client, daemon: RunningDaemon, ballast: Path, kind: str
) -> None:
    """Before there is none: so nothing of what they have accepted is lost."""
    if kind == "xfs" and ("xfs" not in Path("/proc/filesystems").read_text() or shutil.which("mkfs.xfs") is None):
        pytest.skip("no xfs here")
    resize(ballast.parent, 4 * DISK_BYTES)
    box = client.create(overcommit=True)
    data = client.volumes.create("data", overcommit=True, **KINDS[kind])
    secret = KINDS[kind].get("secret")
    data.mount(box, "/data", secret=secret)
    before = len(events(daemon))
    fill(ballast, left=54 << 20)  # an eighth of it is the reserve: 48 MiB
    result = box.run(["sh", "-c", FILL])
    assert b"No space left on device" in result.stderr
    assert os.statvfs(ballast.parent).f_bavail > 0
    wait_until(lambda: events(daemon)[before:] == ["disk.full"], "it is recorded")
    ballast.unlink()
    wait_until(lambda: events(daemon)[before:] == ["disk.full", "disk.room"], "there is room again")
    again = ["sh", "-c", "until dd if=/dev/zero of=/data/0 bs=16k count=1 conv=fsync; do sleep 0.1; done"]
    assert box.run(again, timeout=60).exit_code == 0
    client.volumes.unmount(box, "/data")
    data.mount(box, "/data", secret=secret)
    whole = box.run(["sh", "-c", "find /data -type f -size 16k | wc -l"])
    assert int(whole.stdout) == int(result.stdout)
    box.destroy()
    data.delete()
    resize(ballast.parent, DISK_BYTES)


def test_that_the_disk_is_full_is_said_with_what_to_do(
    client: Client, daemon: RunningDaemon, ballast: Path, sysproc: Sysproc
) -> None:
    assert not client.system_info().disk.full
    fill(ballast, left=LEFT_BYTES)
    wait_until(lambda: client.system_info().disk.full, "the service has seen it")
    disk = client.system_info().disk
    assert disk.free_bytes <= disk.enough_bytes < disk.size_bytes
    info, found = sysproc("info").stdout.decode(), sysproc("doctor").stdout.decode()
    assert "containers get no more of it" in info and "Free some space" in info
    assert "disk: The disk with the state directory: full" in found and "Free some space" in found
    ballast.unlink()
    wait_until(lambda: not client.system_info().disk.full, "there is room again")
    assert "free" in sysproc("info").stdout.decode() and "Free some space" not in sysproc("info").stdout.decode()


# As fast as it can, beside one that syncs what it has; when it is told to.
FLOOD = """
echo begun
kill -STOP $$
dd if=/dev/zero of=/data/flood bs=1M 2>/dev/null &
n=0
while dd if=/dev/zero of=/data/$n bs=16k count=1 conv=fsync 2>/dev/null; do n=$((n+1)); done
wait; echo $n
"""
LOST = "n=0; while [ $n -lt {} ]; do [ $(wc -c </data/$n) = 16384 ] || echo $n; n=$((n+1)); done"


def resize(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)


def is_stopped(pid: int) -> bool:
    """By a signal (proc(5), /proc/PID/stat)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("T")


@pytest.mark.parametrize("watched", [True, False])
def test_a_flood_that_fills_the_disk_loses_nothing_that_was_synced(
    client: Client, daemon: RunningDaemon, ballast: Path, watched: bool
) -> None:
    """Also where nobody watches: then there is no ENOSPC but EIO, until it is mounted again."""
    box = client.create(overcommit=True)
    data = client.volumes.create("data", size="200M", overcommit=True)
    (file,) = (daemon.state_dir / "volumes").iterdir()
    data.mount(box, "/data")
    fill(ballast, left=24 << 20)
    said = iter(box.exec(["sh", "-c", FLOOD], stdin=False))
    assert next(said).data == b"begun\n"
    (flood,) = (one.host_pid for one in box.ps() if one.argv[0] == b"sh")
    wait_until(lambda: is_stopped(flood), "it waits")
    seen = daemon.log_text().count(FULL)
    if watched:
        os.kill(flood, signal.SIGCONT)
        wait_until(lambda: daemon.log_text().count(FULL) > seen, "the service has seen it")
    else:
        os.kill(daemon.pid, signal.SIGSTOP)
        try:
            os.kill(flood, signal.SIGCONT)
            wait_until(lambda: os.statvfs(ballast.parent).f_bavail == 0, "the disk is full")
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
    ballast.unlink()
    resize(ballast.parent, 4 * DISK_BYTES)  # what was accepted may be more than there was room for
    synced = int(b"".join(chunk.data for chunk in said))
    client.volumes.unmount(box, "/data")
    assert clean(file)
    data.mount(box, "/data")
    assert box.run(["sh", "-c", LOST.format(synced)]).stdout == b""
    box.destroy()
    data.delete()
    resize(ballast.parent, DISK_BYTES)


def test_what_runs_goes_on_and_can_be_destroyed(client: Client, ballast: Path) -> None:
    box = client.create(overcommit=True)
    fill(ballast)
    assert [one.id for one in client.list()] == [box.id]
    with pytest.raises(LimitExceeded, match=r"disk|space"):
        box.run(["true"])
    try_to_destroy(box)
    ballast.unlink()
    if client.list():
        box.destroy()
    assert client.list() == []


def try_to_destroy(box: Container) -> None:
    """A record that cannot be written is an error; it may be that there is room for it, too."""
    try:
        box.destroy()
    except LimitExceeded:
        return


def test_output_waits_for_room_and_nothing_of_it_is_lost(client: Client, ballast: Path) -> None:
    box = client.create(overcommit=True)
    process = box.exec(["sh", "-c", "read go; head -c 300000 /dev/zero; exit 3"])
    process.stdin.write(b"")
    chunks = iter(process)
    fill(ballast, left=LEFT_BYTES)
    process.stdin.write(b"go\n")
    got = len(next(chunks).data)
    assert got <= LEFT_BYTES + 4096
    ballast.unlink()
    got += sum(len(chunk.data) for chunk in chunks)
    assert got == 300000
    assert process.ended is not None and process.ended.exit_code == 3
    box.destroy()


def test_a_full_disk_from_inside_is_the_containers_own_matter(client: Client) -> None:
    box = client.create(size="32M", overcommit=True)
    result = box.run(["dd", "if=/dev/zero", "of=/file", "bs=1M"])
    assert b"No space left" in result.stderr
    assert box.run(["rm", "/file"]).exit_code == 0
    assert box.run(["cp", "/bin/busybox", "/file"]).exit_code == 0
    box.destroy()


def test_the_daemon_still_answers(client: Client) -> None:
    with pytest.raises(SysprocError):
        client.get("nosuch")
