"""Encrypted volumes that somebody wants alone, or past the host's page cache; and that nothing is left of a locked one.

What is not encrypted is in `tests.e2e.test_volume_mounts`.
"""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from sysproc.linux.device_mapper import mapped_uuids, why_not
from sysproc.linux.loop import loop_name
from sysproc.storage.luks.region import Region
from sysproc.storage.luks.volume import open_volume, unlock
from sysproc.storage.vsf.disk import read_disk
from sysproc_client import Client, Container, FailedPrecondition
from tests.e2e.conftest import Sysproc
from tests.e2e.daemon import RunningDaemon
from tests.e2e.encrypted import SECRET, needs_fuse, the_file, volume_processes
from tests.e2e.inside import says
from tests.leaks.proc import our_processes, read_text
from tests.waiting import wait_until

pytestmark = needs_fuse
PARTS = [("one", "ext4", "28M"), ("two", "ext4", "28M")]


@pytest.mark.parametrize("encrypt", ["fs", "whole"])
def test_what_is_mounted_exclusively_is_mounted_once(
    client: Client, daemon: RunningDaemon, box: Container, encrypt: str
) -> None:
    other, data = client.create(), client.volumes.create("data", filesystems=PARTS, encrypt=encrypt, secret=SECRET)
    data.mount(other, "/data", filesystem="one", secret=SECRET)
    with pytest.raises(FailedPrecondition, match="in use elsewhere"):
        data.mount(box, "/data", filesystem="one", exclusive=True, secret=SECRET)
    client.volumes.unmount(other, "/data")
    data.mount(box, "/data", filesystem="one", exclusive=True, secret=SECRET)
    data.mount(other, "/two", filesystem="two", secret=SECRET)
    shown = {one.filesystem: one.exclusive for one in data.refresh().attached_to}
    assert shown == {"one": True, "two": False}
    daemon.restart()
    for exclusive in (False, True):
        with pytest.raises(FailedPrecondition, match="in use elsewhere"):
            data.mount(other, "/data", filesystem="one", exclusive=exclusive, read_only=True, secret=SECRET)
    says(box, "echo kept >/data/file")
    box.destroy()
    wait_until(lambda: len(data.refresh().attached_to) == 1, "only the other filesystem is mounted")
    data.mount(other, "/data", filesystem="one", exclusive=True, secret=SECRET)
    assert says(other, "cat /data/file") == b"kept\n"
    data.lock(force=True)
    data.mount(other, "/data", filesystem="one", secret=SECRET)
    assert [one.exclusive for one in data.refresh().attached_to] == [False]


@pytest.mark.parametrize("encrypt", ["fs", "whole"])
def test_direct_io_is_for_what_the_kernel_decrypts(client: Client, box: Container, encrypt: str) -> None:
    data = client.volumes.create("data", size="48M", encrypt=encrypt, secret=SECRET)
    if why_not() is not None:
        with pytest.raises(FailedPrecondition, match="dm-crypt") as refused:
            data.mount(box, "/data", direct_io=True, secret=SECRET)
        assert refused.value.reason == "NO_DIRECT_IO" and not data.refresh().unlocked
        data.mount(box, "/data", secret=SECRET)
    else:
        data.mount(box, "/data", direct_io=True, secret=SECRET)
        says(box, "head -c 3000000 /dev/urandom >/data/file; sha256sum /data/file >/data/sum")
        assert [one.direct_io for one in data.refresh().attached_to] == [True]
        data.lock(force=True)
        data.mount(box, "/data", secret=SECRET)
        says(box, "sha256sum -c /data/sum")
    assert [one.direct_io for one in data.refresh().attached_to] == [False]
    with pytest.raises(FailedPrecondition, match="cannot be mounted with direct I/O") as shared:
        data.mount(box, "/again", direct_io=True)
    assert shared.value.reason == "NO_DIRECT_IO"


def test_the_command_says_how_it_is_mounted(client: Client, sysproc: Sysproc, box: Container) -> None:
    client.volumes.create("data", size="48M", encrypt="fs", secret=SECRET)
    mount = ("mount", "box", "data", "/data", "--key-file", "-")
    refused = sysproc(*mount, "--direct-io", input=SECRET.encode())
    if why_not() is not None:
        assert b"dm-crypt" in refused.stderr and b"Leave direct I/O out" in refused.stderr
        assert sysproc(*mount, "--exclusive", input=SECRET.encode()).returncode == 0
        assert b"rw,exclusive" in sysproc("volume", "inspect", "data").stdout


TRICKS = {
    "a namespace": "unshare -m sh -c 'sleep 1000' >/dev/null 2>&1 & sleep 0.3; umount /data",
    "a namespace of other users": "unshare -Umr sh -c 'sleep 1000' >/dev/null 2>&1 & sleep 0.3; umount /data",
    "a file": "sleep 1000 <>/data/file >/dev/null 2>&1 & sleep 0.3; umount -l /data",
    "a directory": "cd /data; sleep 1000 >/dev/null 2>&1 & sleep 0.3; umount -l /data",
}


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize("fs", ["ext4", "btrfs"])
def test_who_uses_it_where_nobody_sees_it_is_named_and_keeps_nobody_from_locking_it(
    client: Client, daemon: RunningDaemon, box: Container, fs: str, trick: str
) -> None:
    data = client.volumes.create("data", size="160M", fs=fs, encrypt="fs", secret=SECRET)
    data.mount(box, "/data", secret=SECRET)
    says(box, "echo kept >/data/file")
    says(box, TRICKS[trick])
    assert data.refresh().attached_to == [] and data.unlocked
    for refused in (data.lock, data.delete):
        with pytest.raises(FailedPrecondition, match=r"sleep \(\d+\) in") as used:
            refused()
        assert used.value.reason == "VOLUME_IN_USE"
    data.lock(force=True)
    assert not data.refresh().unlocked
    data.mount(box, "/data", secret=SECRET)
    assert says(box, "cat /data/file") == b"kept\n"


def mounts_with(text: str) -> list[str]:
    """Of all processes of this machine, whatever their namespace."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [line for pid in pids for line in read_text(pid, "mountinfo").splitlines() if text in line]


def loops_of(file: Path) -> Iterator[str]:
    """Loop devices on the file, and on what is decrypted of it, whose name says so."""
    inode = os.stat(file).st_ino
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        fd = os.open(f"/dev/{backing.parts[3]}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if backing.read_text().rstrip("\n") == str(file) or f":{inode:x}:" in loop_name(fd):
                yield backing.parts[3]
        except OSError:  # somebody else's, and gone meanwhile
            continue
        finally:
            os.close(fd)


def volume_key(file: Path, encrypt: str) -> bytes:
    """What its data is encrypted with."""
    with file.open("rb") as opened:
        region = Region.whole(opened.fileno())
        if encrypt == "fs":
            part = read_disk(opened.fileno())[0]
            region = Region(opened.fileno(), part.offset_bytes, part.size_bytes)
        with unlock(region, open_volume(region), memoryview(SECRET.encode())).key as key:
            return bytes(key.view)


def has_in_memory(pid: int, wanted: bytes) -> bool:
    """Whether this is anywhere in what a process has mapped and written."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in read_text(pid, "maps").splitlines():
            places, rights, *_ = line.split()
            begin, end = (int(place, 16) for place in places.split("-"))
            if "w" in rights:
                memory.seek(begin)
                try:
                    if wanted in memory.read(end - begin):
                        return True
                except OSError:  # what devices map, and what is gone meanwhile
                    continue
    return False


def who_has_in_memory(pids: set[int], wanted: bytes) -> set[int]:
    return {pid for pid in pids if Path(f"/proc/{pid}").exists() and has_in_memory(pid, wanted)}


@pytest.mark.parametrize("encrypt", ["fs", "whole"])
def test_of_a_locked_one_nothing_is_left(client: Client, daemon: RunningDaemon, box: Container, encrypt: str) -> None:
    other, point = client.create(name="other"), f"/data-{uuid.uuid4().hex}"
    data = client.volumes.create("data", size="48M", encrypt=encrypt, secret=SECRET)
    data.mount(box, point, secret=SECRET)
    data.mount(other, point, read_only=True)
    says(box, f"unshare -m sleep 1000 >/dev/null 2>&1 & sleep 1000 <{point} >/dev/null 2>&1 & mkdir {point}/d")
    file, name = the_file(daemon), f"-{os.stat(the_file(daemon)).st_ino:x}-"
    wait_until(lambda: len({line.split()[0] for line in mounts_with(point)}) == 3, "it is mounted in all namespaces")

    def mappings() -> list[str]:
        return [path for path, of in mapped_uuids().items() if f":{os.stat(file).st_ino:x}:" in of]

    key, by_kernel = volume_key(file, encrypt), why_not() is None
    had_it = set(volume_processes(daemon))
    assert list(loops_of(file)) and bool(mappings()) == by_kernel and bool(had_it) != by_kernel
    ours = {one.pid for one in our_processes(daemon.scope())} | had_it
    assert who_has_in_memory(ours, key) == had_it
    data.lock(force=True)
    assert mounts_with(point) == []
    assert (list(loops_of(file)), mappings(), volume_processes(daemon)) == ([], [], [])
    assert not any(Path(f"/proc/{pid}").exists() for pid in had_it)
    assert name not in Path("/proc/keys").read_text() and "sysproc:" not in Path("/proc/keys").read_text()
    ours = {one.pid for one in our_processes(daemon.scope())}
    assert {daemon.pid, daemon.launcher_pid} < ours and not who_has_in_memory(ours, key)
