"""Files of copies on a real kernel: flawless for other tools, other disks than the originals, whatever was in the log.

Other tools look at it: blkid, sfdisk, e2fsck, `btrfs check`, xfs_repair. Where a mkfs is missing, its tests are
skipped. That containers mount them is in `tests/e2e/test_volume_copies.py`.
"""

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from sysproc.isolation.launcher_client import Launcher
from sysproc.isolation.root_mount import mount_detached
from sysproc.sparse import copy_sparse
from sysproc.storage.state_dir import StateDir
from sysproc.storage.volumes import FOREIGN, Filesystem, VolumeRow
from sysproc.storage.vsf import btrfs_uuid, ext4_uuid
from sysproc.storage.vsf.disk import Part, read_disk
from sysproc.storage.vsf.gpt import read_gpt
from sysproc.storage.vsf.layout import least_disk_bytes
from sysproc.volume_copy_files import VolumeCopyFiles
from sysproc.volume_files import VolumeFiles

MIB = 2**20
MKFS = {"ext4": "mke2fs", "btrfs": "mkfs.btrfs", "xfs": "mkfs.xfs"}
SIZES = {"ext4": 64 * MIB, "btrfs": 128 * MIB, "xfs": 304 * MIB}
CHECKS = {"ext4": ["e2fsck", "-fn"], "btrfs": ["btrfs", "check", "--readonly"], "xfs": ["xfs_repair", "-n"]}
KINDS = [
    pytest.param(kind, marks=pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed"))
    for kind, tool in MKFS.items()
]


class Copies:
    """Files, and copies of them."""

    def __init__(self, state_dir: StateDir, launcher: Launcher) -> None:
        self.files = VolumeFiles(state_dir, launcher)
        self.copies = VolumeCopyFiles(self.files, state_dir, launcher)

    async def copy_of(self, source: VolumeRow) -> VolumeRow:
        row = replace(source, id=source.id + 1, filesystems=self.copies.planned(source))
        await self.copies.make(source, row)
        return row

    def part(self, row: VolumeRow) -> Part:
        with self.files.path(row).open("rb") as file:
            return read_disk(file.fileno())[0]


@pytest.fixture
async def copies(tmp_path: Path) -> AsyncIterator[Copies]:
    with tempfile.TemporaryDirectory(prefix="sysproc-test-") as runtime_dir:
        launcher = Launcher(Path(runtime_dir), ())
        await launcher.connect()
        state_dir = StateDir(tmp_path / "state")
        state_dir.make()
        yield Copies(state_dir, launcher)
        await launcher.quit()
        await launcher.close()


def row_of(kind: str, origin: str = "made") -> VolumeRow:
    filesystem = Filesystem("data", kind, SIZES[kind], str(uuid.uuid4()))
    size = least_disk_bytes([filesystem.size_bytes])
    return VolumeRow(1, None, "data", size, (filesystem,), "delete", False, origin, "ready", None, 0.0, 1, 1)


def check(path: Path, part: Part, kind: str) -> None:
    """What the type's own tool says of the filesystem, in a file of its own."""
    with tempfile.TemporaryFile(dir=path.parent) as alone, path.open("rb") as file:
        os.ftruncate(alone.fileno(), part.size_bytes)
        alone.write(os.pread(file.fileno(), part.size_bytes, part.offset_bytes))
        alone.flush()
        name = f"/proc/self/fd/{alone.fileno()}"
        done = subprocess.run([*CHECKS[kind], name], pass_fds=[alone.fileno()], capture_output=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def says(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()


def after_a_power_cut(copies: Copies, row: VolumeRow, kind: str) -> None:
    """The file becomes what a loss of power would have left: what was synced is in the log, and nowhere else."""
    path, part = copies.files.path(row), copies.part(row)
    with path.open("rb+") as file, path.with_suffix(".cut").open("wb+") as cut:
        mounted = mount_detached(file.fileno(), fstype=kind, offset=part.offset_bytes, size=part.size_bytes)
        for number in range(20):
            fd = os.open(f"/proc/self/fd/{mounted}/file{number}", os.O_WRONLY | os.O_CREAT)
            os.write(fd, b"synced")
            os.fsync(fd)
            os.close(fd)
        copy_sparse(file.fileno(), cut.fileno())
        os.close(mounted)
    path.with_suffix(".cut").rename(path)


def is_logged(copies: Copies, row: VolumeRow, kind: str) -> bool:
    with copies.files.path(row).open("rb") as file:
        has_log = {"ext4": ext4_uuid.has_log, "btrfs": btrfs_uuid.has_log}[kind]
        return has_log(file.fileno(), copies.part(row).offset_bytes)


@pytest.mark.parametrize("cut", [False, True], ids=["unmounted", "after a power cut"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_copy_is_another_disk_and_flawless(copies: Copies, kind: str, cut: bool) -> None:
    row = row_of(kind)
    await copies.files.make(row)
    if cut:
        after_a_power_cut(copies, row, kind)
        assert kind == "xfs" or is_logged(copies, row, kind)
    copy = await copies.copy_of(row)
    part, path = copies.part(copy), copies.files.path(copy)
    assert part.contents is not None
    assert (part.contents.uuid, part.contents.label) == (copy.filesystems[0].uuid, "data")
    assert copy.filesystems[0].uuid != row.filesystems[0].uuid
    assert says("blkid", "-p", "-O", str(part.offset_bytes), "-s", "UUID", "-o", "value", path) == part.contents.uuid
    check(path, part, kind)
    with copies.files.path(row).open("rb") as one, path.open("rb") as other:
        first, second = read_gpt(one.fileno()), read_gpt(other.fileno())
    assert first.disk_guid != second.disk_guid and first.partitions[0].guid != second.partitions[0].guid
    assert "No errors" in says("sfdisk", "--verify", path)
    with path.open("rb+") as file:
        mounted = mount_detached(file.fileno(), fstype=kind, offset=part.offset_bytes, size=part.size_bytes)
        assert len([name for name in os.listdir(f"/proc/self/fd/{mounted}") if name != "lost+found"]) == 20 * cut
        os.close(mounted)
    assert copies.part(copy).contents == part.contents
    assert path.stat().st_blocks * 512 < row.size_bytes / 2 + 40 * MIB


async def test_a_foreign_disk_is_copied_as_it_is(copies: Copies) -> None:
    row = row_of("ext4", FOREIGN)
    await copies.files.make(row)
    after_a_power_cut(copies, row, "ext4")
    copy = await copies.copy_of(row)
    assert copy.filesystems == row.filesystems
    part = copies.part(row)
    held = [
        os.pread(file.fileno(), part.size_bytes, part.offset_bytes)
        for file in (copies.files.path(one).open("rb") for one in (row, copy))
    ]
    assert held[0] == held[1]
    with copies.files.path(row).open("rb") as one, copies.files.path(copy).open("rb") as other:
        assert read_gpt(one.fileno()).disk_guid != read_gpt(other.fileno()).disk_guid
