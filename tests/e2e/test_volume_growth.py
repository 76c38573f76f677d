"""Volumes that change their size: while they are mounted, and when the daemon dies meanwhile.

Growing what nobody uses is in tests/e2e/test_volumes.py.
"""

import shutil
from pathlib import Path

import pytest

from sysproc.linux.capabilities import CAP_SYS_RESOURCE, is_capable
from sysproc.storage.vsf.disk import read_disk
from sysproc_client import (
    Client,
    Container,
    FailedPrecondition,
    InvalidArgument,
    LimitExceeded,
    SysprocError,
    Volume,
)
from tests.e2e.daemon import RunningDaemon
from tests.e2e.inside import says

MIB = 2**20
SIZES = {"ext4": 64, "btrfs": 128, "xfs": 320}
# Writes, from before the growth until it is told to end, and counts what it wrote.
WRITER = """
echo on
i=0
while test ! -e /data/end; do
    echo $i >>/data/log && i=$((i+1))
done
echo $i
"""


def mounted(client: Client, box: Container, kind: str) -> Volume:
    """A volume of this kind, mounted at /data. Skips what there is not here."""
    if kind != "ext4" and shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"not installed: mkfs.{kind}")
    data = client.volumes.create("data", size=SIZES[kind] * MIB, fs=kind)
    try:
        data.mount(box, "/data")
    except FailedPrecondition as refused:
        if "No such device" in str(refused):
            pytest.skip(f"this kernel has no {kind}")
        raise
    return data


def room(box: Container) -> int:
    """MiB of the filesystem at /data."""
    return int(says(box, "df -m /data | tail -n 1").split()[1])


def growable(kind: str) -> None:
    if kind == "ext4" and not is_capable(CAP_SYS_RESOURCE):
        pytest.skip("not permitted here: CAP_SYS_RESOURCE")


@pytest.mark.parametrize("kind", [pytest.param("ext4", marks=pytest.mark.vm), "btrfs", "xfs"])
def test_it_grows_while_it_is_mounted_and_written_to(client: Client, box: Container, kind: str) -> None:
    growable(kind)
    data = mounted(client, box, kind)
    before = room(box)
    with box.exec(["sh", "-c", WRITER], stdin=False) as writer:
        assert next(iter(writer)).data == b"on\n"
        assert data.grow(4 * SIZES[kind] * MIB).size == 4 * SIZES[kind] * MIB
        assert [one.path for one in data.attached_to] == [b"/data"]
        assert room(box) > 3 * before
        says(box, "touch /data/end")
        written = int(b"".join(part.data for part in writer))
    says(box, "head -c 2000000 /dev/urandom >/data/more; sha256sum /data/more >/data/sum")
    client.volumes.unmount(box, "/data")
    data.mount(box, "/data")
    assert int(says(box, "cat /data/log | wc -l")) == written > 9
    says(box, "sha256sum -c /data/sum")
    assert data.grow(4 * SIZES[kind] * MIB).size == 4 * SIZES[kind] * MIB
    assert data.filesystems[0].size_bytes == (4 * SIZES[kind] - 2) * MIB
    assert room(box) > 3 * before


def test_where_the_host_may_not_grow_a_mounted_ext4_it_says_so_and_nothing_is_changed(
    client: Client, daemon: RunningDaemon, box: Container
) -> None:
    if is_capable(CAP_SYS_RESOURCE):
        pytest.skip("this host may")
    data = mounted(client, box, "ext4")
    (file,) = (daemon.state_dir / "volumes").iterdir()
    with pytest.raises(FailedPrecondition, match="in use, and here a mounted ext4 cannot be grown") as refused:
        data.grow("256M")
    assert "Unmount it everywhere" in refused.value.resolution
    assert (data.refresh().size, file.stat().st_size) == (64 * MIB, 64 * MIB)
    client.volumes.unmount(box, "/data")
    assert data.grow("256M").size == 256 * MIB


def test_of_several_filesystems_the_last_grows_whichever_is_mounted(client: Client, box: Container) -> None:
    if shutil.which("mkfs.btrfs") is None:
        pytest.skip("not installed: mkfs.btrfs")
    parts = [("one", "ext4", "16M"), ("two", "btrfs", "128M")]
    data = client.volumes.create("data", filesystems=parts)
    data.mount(box, "/one", filesystem="one")
    says(box, "echo kept >/one/file")
    assert [one.size_bytes // MIB for one in data.grow("400M").filesystems] == [16, 382]
    data.mount(box, "/data", filesystem="two")
    assert room(box) == 382
    assert says(box, "cat /one/file") == b"kept\n"


def test_a_btrfs_that_would_be_too_small_to_grow_is_told_how_large_it_has_to_become(client: Client) -> None:
    if shutil.which("mkfs.btrfs") is None:
        pytest.skip("not installed: mkfs.btrfs")
    data = client.volumes.create("data", size="128M", fs="btrfs")
    with pytest.raises(InvalidArgument) as refused:
        data.grow("200M")
    assert refused.value.reason == "VOLUME_GROWS_TOO_LITTLE" and data.refresh().size == 128 * MIB
    least = int(refused.value.metadata["least_bytes"])
    assert least == 258 * MIB and data.grow(least).size == least


@pytest.mark.parametrize("action", ["kill", "raise"])
@pytest.mark.parametrize(
    ("failpoint", "size"),
    [
        ("volumes.grow.after_intention", 128),
        ("storage.vsf.after_backup_table", 512),
        ("volumes.grow.after_table", 512),
        ("volumes.grow.after_device", 512),
        ("volumes.grow.after_file", 512),
    ],
)
def test_growth_in_use_that_was_cut_off_has_not_happened_or_is_finished(
    daemon: RunningDaemon, failpoint: str, size: int, action: str
) -> None:
    if shutil.which("mkfs.btrfs") is None:
        pytest.skip("not installed: mkfs.btrfs")
    daemon.kill9()
    daemon.kill_launcher()
    daemon.start(environment={"SYSPROC_FAILPOINTS": f"{failpoint}={action}"})
    with Client(daemon.endpoint, patience=0) as client:
        box = client.create(name="box")
        data = mounted(client, box, "btrfs")
        says(box, "echo kept >/data/file")
        with pytest.raises(SysprocError):
            data.grow("512M")
    daemon.kill_launcher()  # it has the failpoint as well
    daemon.restart(environment={"SYSPROC_FAILPOINTS": ""})
    with Client(daemon.endpoint) as client:
        (file,), data = (daemon.state_dir / "volumes").iterdir(), client.volumes.get("data")
        assert (data.size, file.stat().st_size) == (size * MIB, size * MIB)
        box = client.get("box")
        assert room(box) == data.filesystems[0].size_bytes // MIB == size - 2
        assert says(box, "cat /data/file") == b"kept\n"
        assert table_of(file) == [(size - 2) * MIB]
        assert data.grow("600M").size == 600 * MIB
        assert room(box) == 598


def filled(client: Client, box: Container, kind: str, mib: int) -> Volume:
    """A volume of a GiB with so much in it, unmounted, and what it was."""
    if kind != "ext4" and shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"not installed: mkfs.{kind}")
    data = client.volumes.create("data", size="1G", fs=kind)
    data.mount(box, "/data")
    says(box, f"head -c {mib * MIB} /dev/urandom >/data/file; sha256sum /data/file >/data/sum")
    client.volumes.unmount(box, "/data")
    return data


@pytest.mark.parametrize("kind", ["ext4", "btrfs"])
def test_it_shrinks_to_what_is_in_it_and_no_further(
    client: Client, daemon: RunningDaemon, box: Container, kind: str
) -> None:
    data = filled(client, box, kind, 100)
    (file,) = (daemon.state_dir / "volumes").iterdir()
    with pytest.raises(FailedPrecondition, match=r"needs \d+ at least") as refused:
        data.shrink("64M")
    assert refused.value.reason == "VOLUME_TOO_FULL"
    assert (data.refresh().size, file.stat().st_size) == (1024 * MIB, 1024 * MIB)
    least = max(int(refused.value.metadata["least_bytes"]), 300 * MIB)
    assert 100 * MIB < least < 400 * MIB
    assert data.shrink(least).size == least
    assert (file.stat().st_size, table_of(file)) == (least, [least - 2 * MIB])
    assert data.shrink(least).size == least
    with pytest.raises(InvalidArgument, match="cannot shrink to"):
        data.shrink(least + MIB)
    data.mount(box, "/data")
    says(box, "sha256sum -c /data/sum")
    assert room(box) < least // MIB
    with pytest.raises(FailedPrecondition, match="in use"):
        data.shrink(least - MIB)
    client.volumes.unmount(box, "/data")
    data.grow("1G").mount(box, "/data")
    says(box, "sha256sum -c /data/sum")


def test_an_xfs_cannot_shrink(client: Client, box: Container) -> None:
    data = filled(client, box, "xfs", 1)
    with pytest.raises(FailedPrecondition, match="filesystem of type xfs cannot"):
        data.shrink("500M")
    assert data.refresh().size == 1024 * MIB


def test_what_a_shrunk_volume_gives_back_counts_for_others(client: Client) -> None:
    box = client.create(size="32M", storage="300M")
    data = client.volumes.create("data", size="200M", owner=box)
    with pytest.raises(LimitExceeded):
        client.volumes.create("more", size="100M", owner=box)
    data.shrink("64M")
    client.volumes.create("more", size="100M", owner=box)


@pytest.mark.parametrize("action", ["kill", "raise"])
@pytest.mark.parametrize(
    ("failpoint", "size"),
    [
        ("volumes.shrink.after_loop", 128),
        ("volumes.shrink.after_job", 128),
        ("volumes.grow.before_rename", 128),
        ("volumes.shrink.after_file", 64),
    ],
)
def test_shrinking_that_was_cut_off_has_happened_or_has_not(
    daemon: RunningDaemon, failpoint: str, size: int, action: str
) -> None:
    daemon.kill9()
    daemon.kill_launcher()
    daemon.start(environment={"SYSPROC_FAILPOINTS": f"{failpoint}={action}"})
    with Client(daemon.endpoint, patience=0) as client:
        volume = client.volumes.create("data", size="128M")
        with pytest.raises(SysprocError):
            volume.shrink("64M")
    daemon.kill_launcher()
    daemon.restart(environment={"SYSPROC_FAILPOINTS": ""})
    with Client(daemon.endpoint) as client:
        (file,), volume = (daemon.state_dir / "volumes").iterdir(), client.volumes.get("data")
        assert (volume.size, file.stat().st_size) == (size * MIB, size * MIB)
        assert table_of(file) == [volume.filesystems[0].size_bytes] == [(size - 2) * MIB]
        assert volume.shrink("32M").size == 32 * MIB


def table_of(file: Path) -> list[int]:
    """The sizes of the parts, as another program would read them."""
    with file.open("rb") as disk:
        return [part.size_bytes for part in read_disk(disk.fileno())]
