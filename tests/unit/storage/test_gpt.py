"""GUID partition tables: what is written is read, other tools agree, nothing that is damaged is believed."""

import os
import random
import shutil
import subprocess
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysproc.errors import InvalidArgument
from sysproc.storage.vsf.gpt import ALIGNMENT, Gpt, Partition, read_gpt, single_partition, write_gpt


def disk(path: Path, gpt: Gpt) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    os.ftruncate(fd, gpt.disk_bytes)
    write_gpt(fd, gpt)
    return fd


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    labels=st.lists(
        st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=36), min_size=8, max_size=8
    ),
)
def test_what_is_written_is_read(sizes: list[int], labels: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    offset, partitions = ALIGNMENT, []
    for size, label in zip(sizes, labels, strict=False):
        partitions.append(Partition(uuid.uuid4(), uuid.uuid4(), offset, size * ALIGNMENT, label))
        offset += size * ALIGNMENT
    gpt = Gpt(uuid.uuid4(), offset + ALIGNMENT, tuple(partitions))
    fd = disk(tmp_path_factory.mktemp("gpt") / "disk", gpt)
    assert read_gpt(fd) == gpt
    os.close(fd)


@pytest.mark.skipif(shutil.which("sfdisk") is None, reason="sfdisk (package fdisk) is not installed")
def test_sfdisk_finds_our_table_flawless(tmp_path: Path) -> None:
    os.close(disk(tmp_path / "disk", single_partition(64 << 20)))
    verified = subprocess.run(["sfdisk", "--verify", tmp_path / "disk"], capture_output=True, text=True, check=True)
    assert "No errors detected" in verified.stdout
    assert not verified.stderr
    listed = subprocess.run(["sfdisk", "-l", tmp_path / "disk"], capture_output=True, text=True, check=True)
    assert "Linux root" in listed.stdout


def test_a_damaged_primary_table_is_read_from_its_backup(tmp_path: Path) -> None:
    gpt = single_partition(64 << 20)
    fd = disk(tmp_path / "disk", gpt)
    os.pwrite(fd, b"\xff" * 1024, 512)
    assert read_gpt(fd) == gpt
    os.close(fd)


def test_a_grown_file_keeps_its_partition_s_start(tmp_path: Path) -> None:
    gpt = single_partition(64 << 20)
    larger = gpt.grown(256 << 20)
    assert larger.partitions[0].offset_bytes == gpt.partitions[0].offset_bytes
    assert larger.partitions[0].size_bytes > gpt.partitions[0].size_bytes


def test_ten_thousand_mutated_headers_are_read_or_refused(tmp_path: Path) -> None:
    chance = random.Random(7)
    fd = disk(tmp_path / "disk", single_partition(8 << 20))
    good = os.pread(fd, 2048, 0)
    os.pwrite(fd, b"\0" * 512, (8 << 20) - 512)  # no backup to fall back on
    refused = 0
    for _ in range(10_000):
        bad = bytearray(good)
        for _ in range(chance.randint(1, 6)):
            bad[chance.randrange(512, 2048)] = chance.randrange(256)
        os.pwrite(fd, bad, 0)
        try:
            read_gpt(fd)
        except InvalidArgument:
            refused += 1
    os.close(fd)
    assert refused > 9_000


@pytest.mark.parametrize("size", [0, 1, 511, 512, 1024, 17 * 1024])
def test_a_truncated_file_is_refused(tmp_path: Path, size: int) -> None:
    fd = disk(tmp_path / "disk", single_partition(8 << 20))
    os.ftruncate(fd, size)
    with pytest.raises(InvalidArgument):
        read_gpt(fd)
    os.close(fd)
