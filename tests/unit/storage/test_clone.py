"""Cloned VSFs: disks of their own, flawless to e2fsprogs, whole or not there. Plain files: no root is needed."""

import os
import random
import re
import shutil
import subprocess
import uuid
from pathlib import Path

import pytest

from sysproc import failpoints
from sysproc.crc32c import over
from sysproc.storage.vsf.clone import clone_vsf, fresh_vsf, new_file
from sysproc.storage.vsf.ext4_uuid import SUPERBLOCK_BYTES, with_uuid
from sysproc.storage.vsf.gpt import read_gpt, single_partition

pytestmark = pytest.mark.skipif(shutil.which("mke2fs") is None, reason="mke2fs (package e2fsprogs) is not installed")


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "template.vsf"
    gpt = single_partition(600 << 20)
    with new_file(path) as fd:
        fresh_vsf(fd, gpt)
    offset, size = gpt.partitions[0].offset_bytes, gpt.partitions[0].size_bytes
    command = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-O", "metadata_csum,metadata_csum_seed"]
    subprocess.run([*command, "-E", f"offset={offset}", path, str(size // 4096)], check=True, capture_output=True)
    return path


def filesystem(path: Path) -> Path:
    """The filesystem by itself, for tools that know no partitions."""
    with path.open("rb") as disk:
        partition = read_gpt(disk.fileno()).partitions[0]
        alone = path.with_suffix(".ext4")
        with alone.open("wb") as file:
            disk.seek(partition.offset_bytes)
            file.write(disk.read(partition.size_bytes))
    return alone


def uuid_of(alone: Path) -> str:
    told = subprocess.run(["dumpe2fs", "-h", alone], capture_output=True, text=True, check=True).stdout
    found = re.search(r"Filesystem UUID:\s+(\S+)", told)
    assert found
    return found[1]


def test_crc32c_is_the_one_of_rfc_3720() -> None:
    assert over(0xFFFFFFFF, b"123456789") ^ 0xFFFFFFFF == 0xE3069283


def test_the_checksum_after_a_change_of_the_uuid_is_that_of_the_whole_superblock() -> None:
    for seed in range(20):
        chance = random.Random(seed)
        body = chance.randbytes(SUPERBLOCK_BYTES - 4)
        before = body + over(0xFFFFFFFF, body).to_bytes(4, "little")
        after = with_uuid(before, new := uuid.UUID(bytes=chance.randbytes(16)))
        assert after == body[:0x68] + new.bytes + body[0x78:] + over(0xFFFFFFFF, after[:-4]).to_bytes(4, "little")


def test_a_clone_is_a_disk_of_its_own_and_e2fsck_finds_nothing(template: Path, tmp_path: Path) -> None:
    clone_vsf(template, tmp_path / "clone.vsf")
    one, other = filesystem(template), filesystem(tmp_path / "clone.vsf")
    assert uuid_of(one) != uuid_of(other)
    subprocess.run(["e2fsck", "-fn", other], check=True, capture_output=True)
    backup: list[str | Path] = ["e2fsck", "-fn", "-b", "32768", "-B", "4096", other]
    assert "Bad magic" not in subprocess.run(backup, capture_output=True, text=True, check=False).stdout
    with template.open("rb") as a, (tmp_path / "clone.vsf").open("rb") as b:
        assert read_gpt(a.fileno()).disk_guid != read_gpt(b.fileno()).disk_guid


def test_a_clone_is_as_sparse_as_its_template(template: Path, tmp_path: Path) -> None:
    clone_vsf(template, tmp_path / "clone.vsf")
    assert (tmp_path / "clone.vsf").stat().st_size == template.stat().st_size
    assert (tmp_path / "clone.vsf").stat().st_blocks <= template.stat().st_blocks + 64


def test_a_clone_that_fails_leaves_no_file(template: Path, tmp_path: Path) -> None:
    before = set(os.listdir(tmp_path))
    failpoints.arm("storage.vsf.before_link=raise")
    try:
        with pytest.raises(OSError, match="failpoint"):
            clone_vsf(template, tmp_path / "clone.vsf")
    finally:
        failpoints.arm("")
    assert set(os.listdir(tmp_path)) == before
