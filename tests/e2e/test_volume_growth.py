"""Volumes that change their size: while they are mounted, and when the daemon dies meanwhile.

Growing what nobody uses is in tests/e2e/test_volumes.py.
"""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from sysproc.linux.capabilities import CAP_SYS_RESOURCE, is_capable
from sysproc.storage.vsf.disk import read_disk
from sysproc_client import Client, Container, FailedPrecondition, SysprocError, Volume
from tests.e2e.daemon import RunningDaemon
from tests.waiting import wait_until

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


@pytest.fixture(autouse=True)
def no_volume_is_left(daemon: RunningDaemon, nothing_is_left: None) -> Iterator[None]:
    """The host's own are deleted before the leak check."""
    yield
    if not daemon.alive():
        daemon.start()
    daemon.destroy_all()
    with Client(daemon.endpoint) as client:
        for volume in client.volumes.list():
            wait_until(partial(is_free, volume), "nothing holds it")
            volume.delete()


def is_free(volume: Volume) -> bool:
    return not volume.refresh().attached_to


@pytest.fixture
def box(client: Client) -> Container:
    return client.create(name="box")


def says(box: Container, script: str) -> bytes:
    done = box.run(["sh", "-c", script])
    assert done.exit_code == 0, done.stderr
    return done.stdout


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


@pytest.mark.vm
@pytest.mark.parametrize("kind", SIZES)
def test_it_grows_while_it_is_mounted_and_written_to(client: Client, box: Container, kind: str) -> None:
    growable(kind)
    data = mounted(client, box, kind)
    before = room(box)
    with box.exec(["sh", "-c", WRITER], stdin=False) as writer:
        assert next(iter(writer)).data == b"on\n"
        assert data.grow(4 * SIZES[kind] * MIB).size == 4 * SIZES[kind] * MIB
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


@pytest.mark.vm
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


def table_of(file: Path) -> list[int]:
    """The sizes of the parts, as another program would read them."""
    with file.open("rb") as disk:
        return [part.size_bytes for part in read_disk(disk.fileno())]
