"""Files of volumes on a real kernel: what was formatted mounts, is known by its label and UUID, grows, and is flawless.

Other tools look at it: blkid, e2fsck, `btrfs check`, xfs_repair. Where a mkfs is missing, its tests are skipped.
"""

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from sysproc.errors import FailedPrecondition
from sysproc.isolation import launcher_client
from sysproc.isolation.launcher_client import Launcher
from sysproc.isolation.root_mount import mount_detached
from sysproc.linux.loop import LO_FLAGS_AUTOCLEAR, loop_configure, loops_backed_by
from sysproc.sparse import data_extents
from sysproc.storage.state_dir import StateDir
from sysproc.storage.volumes import MADE, Filesystem, VolumeRow
from sysproc.storage.vsf.disk import Part, read_disk
from sysproc.storage.vsf.layout import least_disk_bytes
from sysproc.volume_files import VolumeFiles

MIB = 2**20
MKFS = {"ext4": "mke2fs", "btrfs": "mkfs.btrfs", "xfs": "mkfs.xfs"}
SIZES = {"ext4": 64 * MIB, "btrfs": 128 * MIB, "xfs": 304 * MIB}
CHECKS = {"ext4": ["e2fsck", "-fn"], "btrfs": ["btrfs", "check", "--readonly"], "xfs": ["xfs_repair", "-n"]}
KINDS = [
    pytest.param(kind, marks=pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed"))
    for kind, tool in MKFS.items()
]


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[VolumeFiles]:
    with tempfile.TemporaryDirectory(prefix="sysproc-test-") as runtime_dir:
        launcher = Launcher(Path(runtime_dir), ())
        await launcher.connect()
        state_dir = StateDir(tmp_path / "state")
        state_dir.make()
        yield VolumeFiles(state_dir, launcher)
        await launcher.quit()
        await launcher.close()


def row_of(*kinds: str, number: int = 1) -> VolumeRow:
    filesystems = tuple(
        Filesystem(f"{kind}-{at}", kind, SIZES[kind], str(uuid.uuid4())) for at, kind in enumerate(kinds)
    )
    size = least_disk_bytes([one.size_bytes for one in filesystems])
    return VolumeRow(number, None, "data", size, filesystems, "delete", False, MADE, "creating", None, 0.0, 1, 1)


def parts_of(files: VolumeFiles, row: VolumeRow) -> tuple[Part, ...]:
    with files.path(row).open("rb") as file:
        return read_disk(file.fileno())


@contextmanager
def mounted(files: VolumeFiles, row: VolumeRow, at: int = 0) -> Iterator[Path]:
    """One filesystem of a volume, mounted where nobody else sees it."""
    part = parts_of(files, row)[at]
    with files.path(row).open("rb+") as file:
        kind, offset, size = row.filesystems[at].type, part.offset_bytes, part.size_bytes
        mount = mount_detached(file.fileno(), fstype=kind, offset=offset, size=size)
    try:
        yield Path(f"/proc/self/fd/{mount}")
    finally:
        os.close(mount)


def check_flawless(files: VolumeFiles, row: VolumeRow, tmp_path: Path) -> None:
    """Each filesystem by itself, looked at by its own tools."""
    for part, filesystem in zip(parts_of(files, row), row.filesystems, strict=True):
        alone = tmp_path / "alone"
        with files.path(row).open("rb") as source, alone.open("wb") as target:
            os.truncate(target.fileno(), part.size_bytes)
            for start, end in data_extents(source.fileno(), part.offset_bytes + part.size_bytes):
                first = max(start, part.offset_bytes)
                source.seek(first)
                target.seek(first - part.offset_bytes)
                target.write(source.read(max(0, min(end, part.offset_bytes + part.size_bytes) - first)))
        done = subprocess.run([*CHECKS[filesystem.type], alone], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        alone.unlink()


@pytest.mark.parametrize("kind", KINDS)
async def test_what_was_formatted_mounts_and_is_known_by_label_and_uuid(
    kind: str, files: VolumeFiles, tmp_path: Path
) -> None:
    row = row_of(kind)
    await files.make(row)
    assert files.path(row).stat().st_size == row.size_bytes
    (part,) = parts_of(files, row)
    (asked,) = row.filesystems
    assert part.contents is not None
    found = (part.label, part.size_bytes, part.contents.kind, part.contents.label, part.contents.uuid)
    assert found == (asked.label, asked.size_bytes, kind, asked.label, asked.uuid)
    check_flawless(files, row, tmp_path)
    with mounted(files, row) as top:
        (top / "file").write_bytes(b"hello" * 1000)
    with mounted(files, row) as top:
        assert (top / "file").read_bytes() == b"hello" * 1000


def told_by_blkid(path: Path, offset: int, size: int) -> dict[str, str]:
    command = ["blkid", "-p", "-o", "export", "-O", str(offset), "-S", str(size), str(path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(line.split("=", 1) for line in told.splitlines() if "=" in line)


@pytest.mark.skipif(shutil.which("blkid") is None, reason="blkid is not installed")
async def test_blkid_finds_several_filesystems_where_we_put_them(files: VolumeFiles) -> None:
    kinds = [kind for kind, tool in MKFS.items() if shutil.which(tool)]
    row = row_of(*kinds, "ext4")
    await files.make(row)
    for part, asked in zip(parts_of(files, row), row.filesystems, strict=True):
        found = told_by_blkid(files.path(row), part.offset_bytes, part.size_bytes)
        assert (found["TYPE"], found["LABEL"], found["UUID"]) == (asked.type, asked.label, asked.uuid)


@pytest.mark.parametrize("kind", KINDS)
async def test_two_volumes_of_one_kind_and_size_can_be_mounted_at_once(kind: str, files: VolumeFiles) -> None:
    one, other = row_of(kind, number=1), row_of(kind, number=2)
    await files.make(one)
    await files.make(other)
    with mounted(files, one) as top, mounted(files, other) as second:
        (top / "file").touch()
        assert not (second / "file").exists()


@pytest.mark.parametrize("kind", KINDS)
async def test_the_last_filesystem_grows_and_everything_is_still_there(
    kind: str, files: VolumeFiles, tmp_path: Path
) -> None:
    row = row_of("ext4", kind)
    await files.make(row)
    content = os.urandom(3 * MIB)
    for at in (0, 1):
        with mounted(files, row, at) as top:
            (top / "file").write_bytes(content)
            before = os.statvfs(top).f_blocks
    grown = replace(row, size_bytes=row.size_bytes + 1024 * MIB, grown_from=row.size_bytes)
    last_bytes = await files.grow(grown)
    assert last_bytes == row.filesystems[1].size_bytes + 1024 * MIB == files.grown_last(grown)
    assert [one.size_bytes for one in parts_of(files, grown)] == [row.filesystems[0].size_bytes, last_bytes]
    for at in (0, 1):
        with mounted(files, grown, at) as top:
            assert (top / "file").read_bytes() == content
            after = os.statvfs(top)
    assert after.f_blocks > before and after.f_blocks * after.f_frsize > 0.8 * last_bytes
    check_flawless(files, grown, tmp_path)


async def test_a_volume_is_sparse_however_large_it_is(files: VolumeFiles) -> None:
    row = row_of("ext4")
    large = replace(
        row, filesystems=(replace(row.filesystems[0], size_bytes=64 << 30),), size_bytes=(64 << 30) + 2 * MIB
    )
    await files.make(large)
    stat = files.path(large).stat()
    assert stat.st_size == large.size_bytes and stat.st_blocks * 512 < 2 * MIB
    with mounted(files, large) as top:
        assert os.statvfs(top).f_blocks * 4096 > 60 << 30


async def test_a_filesystem_that_no_kernel_takes_is_not_grown_and_left_as_it_is(files: VolumeFiles) -> None:
    row = replace(row_of("ext4"), filesystems=(Filesystem("x", "xfs", 64 * MIB, str(uuid.uuid4())),))
    await files.make(row_of("ext4"))
    before = files.path(row).read_bytes()
    with pytest.raises(FailedPrecondition, match="cannot be grown"):
        await files.grow(replace(row, size_bytes=row.size_bytes + 64 * MIB, grown_from=row.size_bytes))
    assert files.path(row).read_bytes() == before
    assert files.grown_last(replace(row, size_bytes=row.size_bytes + 64 * MIB)) is None


async def test_a_mkfs_that_is_not_installed_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher_client, "LAUNCHER_PATH", str(tmp_path))
    with tempfile.TemporaryDirectory(prefix="sysproc-test-") as runtime_dir:
        launcher = Launcher(Path(runtime_dir), ())
        await launcher.connect()
        state_dir = StateDir(tmp_path / "state")
        state_dir.make()
        with pytest.raises(FailedPrecondition, match=r"mkfs\.xfs \(install xfsprogs\)"):
            await VolumeFiles(state_dir, launcher).make(row_of("xfs"))
        assert list(state_dir.volumes.iterdir()) == []
        await launcher.quit()
        await launcher.close()


async def test_a_volume_that_is_a_disk_of_the_kernel_is_in_use(files: VolumeFiles) -> None:
    row = row_of("ext4")
    await files.make(row)
    files.check_unused(row)
    with files.path(row).open("rb+") as file:
        flags = LO_FLAGS_AUTOCLEAR
        device, _ = loop_configure(file.fileno(), offset=0, size=0, flags=flags)
    with pytest.raises(FailedPrecondition, match="has its file open"):
        files.check_unused(row)
    os.close(device)
    assert loops_backed_by(files.path(row)) == []


async def test_a_volume_that_a_process_writes_to_is_in_use(files: VolumeFiles) -> None:
    row = row_of("ext4")
    await files.make(row)
    with files.path(row).open("rb+"), pytest.raises(FailedPrecondition, match="has its file open"):
        files.check_unused(row)
    files.check_unused(row)


async def test_files_of_no_volume_are_removed(files: VolumeFiles) -> None:
    row = row_of("ext4")
    await files.make(row)
    for name in ("0000000000000009.vsf", "0000000000000001.grown", "something"):
        files.path(row).with_name(name).touch()
    files.remove_strangers([row.id])
    assert os.listdir(files.path(row).parent) == [files.path(row).name]
