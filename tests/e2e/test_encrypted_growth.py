"""Encrypted volumes that grow: while they are mounted, and when the daemon dies meanwhile.

What is not encrypted is in `tests.e2e.test_volume_growth`; growing with the secret what nobody uses in
`tests.e2e.test_encrypted_volumes`.
"""

import os
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from sysproc.linux.capabilities import CAP_SYS_RESOURCE, is_capable
from sysproc.linux.device_mapper import why_not
from sysproc.linux.files import f_ofd_getlk
from sysproc.storage.vsf.clone import fresh_vsf
from sysproc.storage.vsf.gpt import single_partition
from sysproc_client import Client, Container, FailedPrecondition, InternalError, PermissionDenied, SysprocError, Volume
from tests.e2e.daemon import RunningDaemon
from tests.e2e.encrypted import SECRET, encrypted_image, needs_fuse, the_file
from tests.e2e.inside import init_of, says
from tests.waiting import wait_until

MIB = 1 << 20
SIZES = {"ext4": 64, "btrfs": 160, "xfs": 352}
# Besides the filesystem: its header, and around the partition.
BESIDES = {"fs": 2, "whole": 18}
pytestmark = needs_fuse


def room(box: Container, path: str = "/data") -> int:
    """MiB of the filesystem there."""
    return int(says(box, f"df -m {path} | tail -n 1").split()[1])


def mounted(client: Client, box: Container, kind: str, encrypt: str) -> Volume:
    """A volume of this kind, mounted at /data. Skips what there is not here."""
    if kind != "ext4" and shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"not installed: mkfs.{kind}")
    if kind == "ext4" and not is_capable(CAP_SYS_RESOURCE):
        pytest.skip("not permitted here: CAP_SYS_RESOURCE")
    data = client.volumes.create("data", size=SIZES[kind] * MIB, fs=kind, encrypt=encrypt, secret=SECRET)
    try:
        data.mount(box, "/data", secret=SECRET)
    except FailedPrecondition as refused:
        if "No such device" in str(refused):
            pytest.skip(f"this kernel has no {kind}")
        raise
    return data


@pytest.mark.parametrize(
    ("kind", "encrypt"), [("ext4", "fs"), ("ext4", "whole"), ("btrfs", "fs"), ("btrfs", "whole"), ("xfs", "fs")]
)
def test_it_grows_while_it_is_mounted(
    client: Client, daemon: RunningDaemon, box: Container, kind: str, encrypt: str
) -> None:
    data, size = mounted(client, box, kind, encrypt), 3 * SIZES[kind] * MIB
    says(box, "yes a-mark-of-some-length | head -c 3000000 >/data/file; sha256sum /data/file >/data/sum")
    before = room(box)
    grown = data.grow(size, secret=SECRET)
    assert (grown.size, the_file(daemon).stat().st_size) == (size, size)
    assert grown.filesystems[0].size_bytes == size - BESIDES[encrypt] * MIB
    assert [one.path for one in data.attached_to] == [b"/data"] and room(box) > 2 * before
    says(box, "head -c 9000000 /dev/urandom >/data/more; sha256sum /data/more >>/data/sum; sync")
    data.lock(force=True)
    assert b"a-mark-of-some-length" not in the_file(daemon).read_bytes()
    data.mount(box, "/data", secret=SECRET)
    says(box, "sha256sum -c /data/sum")
    assert data.grow(size).size == size
    data.lock(force=True)
    assert [one.result for one in data.check(secret=SECRET)] == ["clean"]


@pytest.mark.parametrize("encrypt", BESIDES)
def test_whoever_has_it_open_grows_it_without_the_secret_unless_the_kernel_decrypts(
    client: Client, daemon: RunningDaemon, box: Container, encrypt: str
) -> None:
    data = mounted(client, box, "btrfs", encrypt)
    if why_not() is None:
        with pytest.raises(FailedPrecondition, match="locked"):
            data.grow("512M")
        with pytest.raises(PermissionDenied):
            data.grow("512M", secret="wrong")
        assert (data.refresh().size, the_file(daemon).stat().st_size) == (160 * MIB, 160 * MIB)
    assert data.grow("512M", secret=None if why_not() else SECRET).size == 512 * MIB
    assert room(box) == 512 - {"fs": 18, "whole": 18}[encrypt]


def test_where_the_host_may_not_grow_a_mounted_ext4_it_says_so_and_nothing_is_changed(
    client: Client, daemon: RunningDaemon, box: Container
) -> None:
    if is_capable(CAP_SYS_RESOURCE):
        pytest.skip("this host may")
    data = client.volumes.create("data", size="64M", encrypt="whole", secret=SECRET)
    data.mount(box, "/data", secret=SECRET)
    with pytest.raises(FailedPrecondition, match="in use, and here a mounted ext4 cannot be grown"):
        data.grow("128M", secret=SECRET)
    assert (data.refresh().size, the_file(daemon).stat().st_size) == (64 * MIB, 64 * MIB)


def test_the_last_filesystem_grows_also_where_it_is_the_other_that_is_mounted(client: Client, box: Container) -> None:
    if shutil.which("mkfs.btrfs") is None:
        pytest.skip("not installed: mkfs.btrfs")
    parts = [("one", "ext4", "28M"), ("two", "btrfs", "160M")]
    data = client.volumes.create("data", filesystems=parts, encrypt="fs", secret=SECRET)
    data.mount(box, "/one", filesystem="one", secret=SECRET)
    says(box, "echo kept >/one/file")
    grown = data.grow("500M", secret=SECRET)
    assert [one.size_bytes // MIB for one in grown.filesystems] == [28, 470]
    data.mount(box, "/data", filesystem="two", secret=SECRET)
    assert room(box) == 454 and says(box, "cat /one/file") == b"kept\n"


def test_what_is_refused_for_want_of_the_right_secret_is_as_it_was(
    client: Client, daemon: RunningDaemon, box: Container
) -> None:
    parts = [("one", "ext4", "28M"), ("two", "btrfs", "160M")]
    data = client.volumes.create("data", filesystems=parts, encrypt="fs", secret=SECRET)
    data.mount(box, "/one", filesystem="one", secret=SECRET)
    before, content = data.size, the_file(daemon).read_bytes()
    with pytest.raises(FailedPrecondition, match="locked"):
        data.grow("500M")
    with pytest.raises(PermissionDenied):
        data.grow("500M", secret="wrong")
    assert data.refresh().size == before and the_file(daemon).read_bytes() == content
    assert data.grow(before).size == before


def is_decrypted(daemon: RunningDaemon) -> bool:
    with the_file(daemon).open("rb") as file:
        return f_ofd_getlk(file.fileno(), 0, 0)


def armed(daemon: RunningDaemon, failpoints: str) -> None:
    """Start anew, daemon and launcher, with these failpoints."""
    if daemon.alive():
        daemon.kill9()
    daemon.kill_launcher()
    daemon.start(environment={"SYSPROC_FAILPOINTS": failpoints})


@pytest.mark.parametrize(
    ("encrypt", "failpoint", "action", "size"),
    [
        ("whole", "volumes.grow.after_intention", "kill", 160),
        ("fs", "storage.vsf.after_backup_table", "kill", 512),
        ("whole", "volumes.grow.after_table", "kill", 512),
        ("whole", "volumes.grow.after_device", "raise", 512),
    ],
)
def test_growth_in_use_that_was_cut_off_has_not_happened_or_is_finished(
    daemon: RunningDaemon, encrypt: str, failpoint: str, action: str, size: int
) -> None:
    if why_not() is None:
        pytest.skip("dm-crypt wants the secret again: the next test")
    armed(daemon, f"{failpoint}={action}")
    with Client(daemon.endpoint, patience=0) as client:
        box = client.create(name="box")
        data = mounted(client, box, "btrfs", encrypt)
        says(box, "echo kept >/data/file")
        with pytest.raises(SysprocError):
            data.grow("512M")
    armed(daemon, "")
    with Client(daemon.endpoint) as client:
        data, box = client.volumes.get("data"), client.get("box")
        assert (data.size, the_file(daemon).stat().st_size) == (size * MIB, size * MIB)
        assert data.filesystems[0].size_bytes == (size - BESIDES[encrypt]) * MIB
        assert room(box) == size - 18 and says(box, "cat /data/file") == b"kept\n"
        assert data.grow("600M", secret=SECRET).size == 600 * MIB
        assert room(box) == 600 - 18


@pytest.mark.parametrize("encrypt", BESIDES)
def test_what_was_cut_off_and_is_locked_since_is_finished_by_asking_again(daemon: RunningDaemon, encrypt: str) -> None:
    armed(daemon, "volumes.grow.after_table=kill")
    with Client(daemon.endpoint, patience=0) as client:
        box = client.create(name="box")
        data = mounted(client, box, "btrfs", encrypt)
        says(box, "echo kept >/data/file; sync")
        init = init_of(box)
        with pytest.raises(SysprocError):
            data.grow("512M", secret=SECRET)
    os.kill(init, signal.SIGKILL)
    wait_until(lambda: not is_decrypted(daemon), "nothing decrypts it any more")
    armed(daemon, "volumes.encrypt.after_copy=1*raise")
    with Client(daemon.endpoint, patience=0) as client:
        data, box = client.volumes.get("data"), client.get("box").start()
        with pytest.raises(InternalError):
            data.grow("700M", secret=SECRET)
        assert data.refresh().size == 512 * MIB
        assert data.filesystems[0].size_bytes == (160 - BESIDES[encrypt]) * MIB
        with pytest.raises(FailedPrecondition, match="locked"):
            data.grow("512M")
        grown = data.grow("512M", secret=SECRET)
        assert grown.filesystems[0].size_bytes == (512 - BESIDES[encrypt]) * MIB
        data.mount(box, "/data", secret=SECRET)
        assert room(box) == 512 - 18 and says(box, "cat /data/file") == b"kept\n"


def test_a_service_starts_also_where_growth_cannot_be_finished(daemon: RunningDaemon) -> None:
    if why_not() is None:
        pytest.skip("dm-crypt wants the secret again: it is not tried at the start")
    armed(daemon, "volumes.grow.after_table=kill")
    with Client(daemon.endpoint, patience=0) as client:
        data = mounted(client, client.create(name="box"), "btrfs", "whole")
        with pytest.raises(SysprocError):
            data.grow("512M")
    armed(daemon, "volumes.grow.after_decrypted=1*raise")
    with Client(daemon.endpoint) as client:
        data, box = client.volumes.get("data"), client.get("box")
        assert (data.size, data.filesystems[0].size_bytes) == (512 * MIB, (160 - BESIDES["whole"]) * MIB)
        assert data.grow("512M").filesystems[0].size_bytes == (512 - BESIDES["whole"]) * MIB
        assert room(box) == 512 - 18


def foreign_disk(file: Path) -> Path:
    """A disk of 48 MiB whose only partition begins later than ours do, and ends earlier."""
    gpt = single_partition(48 * MIB, "data")
    part = replace(gpt.partitions[0], offset_bytes=4 * MIB, size_bytes=16 * MIB)
    with file.open("wb+") as made:
        fresh_vsf(made.fileno(), replace(gpt, partitions=(part,)))
    subprocess.run(["mke2fs", "-q", "-b", "4096", "-E", f"offset={4 * MIB}", file, "16M"], check=True)
    return file


@pytest.mark.parametrize(("failpoint", "size"), [("volumes.grow.before_rename", 64), ("volumes.grow.after_file", 96)])
def test_what_others_have_laid_out_has_grown_after_a_crash_or_has_not(
    daemon: RunningDaemon, tmp_path: Path, failpoint: str, size: int
) -> None:
    image = encrypted_image(foreign_disk(tmp_path / "plain"), tmp_path / "image")
    armed(daemon, f"{failpoint}=kill")
    with Client(daemon.endpoint, patience=0) as client:
        box, got = client.create(name="box"), client.volumes.import_from("got", image, trusted=True)
        got.mount(box, "/data", secret=SECRET)
        says(box, "echo kept >/data/file")
        got.lock(force=True)
        with pytest.raises(SysprocError):
            got.grow("96M", secret=SECRET)
    armed(daemon, "")
    with Client(daemon.endpoint) as client:
        got, box = client.volumes.get("got"), client.get("box")
        assert (got.size, the_file(daemon).stat().st_size) == (size * MIB, size * MIB)
        assert got.filesystems[0].size_bytes == {64: 16, 96: 96 - 16 - 1 - 4}[size] * MIB
        got.mount(box, "/data", secret=SECRET)
        assert says(box, "cat /data/file") == b"kept\n" and room(box) > {64: 10, 96: 60}[size]
