"""Encrypted volumes by dm-crypt: the kernel decrypts, no process does, and cryptsetup opens the same file."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sysproc.linux.device_mapper import DeviceMapper, is_device_path, mapped_uuids, why_not
from sysproc.linux.loop import LO_FLAGS_AUTOCLEAR, loop_configure
from sysproc.linux.mounts import MOUNT_ATTR_RDONLY, new_mount
from sysproc_client import Client, Container, FailedPrecondition, PermissionDenied
from tests.e2e.daemon import RunningDaemon
from tests.e2e.encrypted import SECRET, the_file, volume_processes
from tests.e2e.inside import says
from tests.waiting import wait_until

CRYPTSETUP = shutil.which("cryptsetup") or shutil.which("cryptsetup", path="/usr/sbin:/sbin")
REASON = why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"no dm-crypt here: {REASON}")


@pytest.fixture(autouse=True)
def no_mapping_is_left(daemon: RunningDaemon, nothing_is_left: None) -> Iterator[None]:
    """With the volumes they are gone, too."""
    yield
    daemon.destroy_all()
    daemon.delete_volumes()
    assert not our_mappings()


def our_mappings() -> set[str]:
    return {path for path, uuid in mapped_uuids().items() if uuid.startswith("sysproc:")}


def source_of(box: Container, path: str) -> str:
    lines = says(box, "cat /proc/mounts").decode().splitlines()
    return next(line.split()[0] for line in lines if line.split()[1] == path)


@contextmanager
def opened_by_cryptsetup(file: Path) -> Iterator[Path]:
    """Its ext4, mounted by who has never heard of the service."""
    if CRYPTSETUP is None:
        pytest.skip("cryptsetup is not installed (apt install cryptsetup-bin)")
    name = f"sysproc-test-{os.getpid()}"
    subprocess.run([CRYPTSETUP, "open", "--key-file=-", file, name], input=SECRET.encode(), check=True)
    try:
        mount = new_mount("ext4", {"source": f"/dev/mapper/{name}"}, MOUNT_ATTR_RDONLY)
        try:
            yield Path(f"/proc/self/fd/{mount}")
        finally:
            os.close(mount)
    finally:
        subprocess.run([CRYPTSETUP, "close", name], check=True)


@contextmanager
def part_as_file(file: Path) -> Iterator[Path]:
    """The only partition of a file, as a device: cryptsetup reads no tables."""
    fd, size = os.open(file, os.O_RDWR | os.O_CLOEXEC), file.stat().st_size - (2 << 20)
    try:
        device_fd, device = loop_configure(fd, offset=1 << 20, size=size, flags=LO_FLAGS_AUTOCLEAR)
    finally:
        os.close(fd)
    try:
        yield Path(device)
    finally:
        os.close(device_fd)


@pytest.mark.vm
def test_the_kernel_decrypts_and_cryptsetup_finds_what_was_written(
    client: Client, daemon: RunningDaemon, box: Container
) -> None:
    data = client.volumes.create("data", size="48M", encrypt="fs", secret=SECRET)
    data.mount(box, "/data", secret=SECRET)
    assert is_device_path(source_of(box, "/data")) and our_mappings() == {source_of(box, "/data")}
    wait_until(lambda: not volume_processes(daemon), "who has opened it has ended")
    says(box, "echo kept >/data/file")
    with pytest.raises(FailedPrecondition) as used:
        data.lock()
    assert used.value.reason == "VOLUME_IN_USE"
    client.volumes.unmount(box, "/data")
    assert not our_mappings() and not data.refresh().unlocked
    with part_as_file(the_file(daemon)) as part, opened_by_cryptsetup(part) as top:
        assert (top / "file").read_text() == "kept\n"


def test_of_one_that_is_encrypted_as_a_whole_a_device_is_over_all(
    client: Client, daemon: RunningDaemon, box: Container
) -> None:
    data = client.volumes.create("data", size="48M", encrypt="whole", secret=SECRET)
    data.mount(box, "/data", secret=SECRET)
    assert source_of(box, "/data").startswith("/dev/loop") and len(our_mappings()) == 1
    data.lock(force=True)
    assert not our_mappings()
    data.delete()


def test_it_goes_with_its_container_whoever_is_killed(client: Client, daemon: RunningDaemon, box: Container) -> None:
    data = client.volumes.create("data", size="48M", encrypt="fs", secret=SECRET)
    data.mount(box, "/data", secret=SECRET)
    daemon.kill9()
    daemon.kill_launcher()
    assert len(our_mappings()) == 1
    daemon.start()
    assert data.refresh().unlocked and not data.broken
    box.destroy()
    wait_until(lambda: not our_mappings(), "it is gone with its last mount")
    assert not data.refresh().unlocked


@pytest.mark.parametrize("encrypt", ["fs", "whole"])
def test_a_snapshot_while_it_is_mounted_has_what_was_written(client: Client, box: Container, encrypt: str) -> None:
    """The loop device below dm-crypt is nobody's raw disk."""
    data = client.volumes.create("data", size="48M", encrypt=encrypt, secret=SECRET)
    data.mount(box, "/data", secret=SECRET)
    says(box, "echo kept >/data/file; sync")
    kept = data.snapshot("kept")
    kept.mount(box, "/kept", secret=SECRET, read_only=True)
    assert says(box, "cat /kept/file") == b"kept\n"
    client.volumes.unmount(box, "/kept")


def test_its_key_is_shown_by_no_table(client: Client, box: Container) -> None:
    data = client.volumes.create("data", size="48M", encrypt="fs", secret=SECRET)
    data.mount(box, "/data", secret=SECRET)
    (path,) = our_mappings()
    name = Path("/sys/block", Path(path).name, "dm/name").read_text().strip()
    with DeviceMapper() as mapper:
        assert f":64:logon:sysproc:{name}" in mapper.table(name)


@pytest.mark.parametrize("encrypt", ["fs", "whole"])
def test_mounted_it_grows_with_its_secret_and_the_kernel_alone_has_the_key_again(
    client: Client, daemon: RunningDaemon, box: Container, encrypt: str
) -> None:
    if shutil.which("mkfs.btrfs") is None:
        pytest.skip("not installed: mkfs.btrfs")
    data = client.volumes.create("data", fs="btrfs", size="160M", encrypt=encrypt, secret=SECRET)
    data.mount(box, "/data", secret=SECRET)
    says(box, "head -c 3000000 /dev/urandom >/data/file; sha256sum /data/file >/data/sum")
    with pytest.raises(FailedPrecondition, match="locked"):
        data.grow("512M")
    with pytest.raises(PermissionDenied):
        data.grow("512M", secret="wrong")
    assert (data.refresh().size, the_file(daemon).stat().st_size) == (160 << 20, 160 << 20)
    data.grow("512M", secret=SECRET)
    assert int(says(box, "df -m /data | tail -n 1").split()[1]) == 512 - 18
    says(box, "head -c 99000000 /dev/urandom >/data/more; sha256sum /data/more >>/data/sum; sync")
    wait_until(lambda: not volume_processes(daemon), "who had the key has ended")
    (path,) = our_mappings()
    name = Path("/sys/block", Path(path).name, "dm/name").read_text().strip()
    assert name not in Path("/proc/keys").read_text()
    data.lock(force=True)
    assert not our_mappings()
    data.mount(box, "/data", secret=SECRET)
    says(box, "sha256sum -c /data/sum")
