"""GUID partition tables: what is written is read, other tools agree, nothing that is damaged is believed."""

import binascii
import json
import os
import random
import shutil
import struct
import subprocess
import tracemalloc
import uuid
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysproc.errors import InvalidArgument
from sysproc.storage.vsf.gpt import ALIGNMENT, SECTOR, Gpt, Partition, read_gpt, single_partition, write_gpt
from sysproc.storage.vsf.layout import Wanted, aligned, least_disk_bytes, plan


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
        partitions.append(Partition(uuid.uuid4(), uuid.uuid4(), offset, size * ALIGNMENT, label, size << 55))
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


@pytest.mark.skipif(shutil.which("sfdisk") is None, reason="sfdisk (package fdisk) is not installed")
def test_sfdisk_reads_types_labels_and_places_as_they_were_planned(tmp_path: Path) -> None:
    wanted = [Wanted("home", 5 << 20), Wanted("data", (3 << 20) + 1), Wanted("srv", None)]
    gpt = plan(wanted, 64 << 20)
    os.close(disk(tmp_path / "disk", gpt))
    dumped = subprocess.run(["sfdisk", "--json", tmp_path / "disk"], capture_output=True, text=True, check=True).stdout
    found = json.loads(dumped)["partitiontable"]
    assert found["id"].lower() == str(gpt.disk_guid)
    assert [
        (one["name"], one["start"] * SECTOR, one["size"] * SECTOR, one["type"].lower(), one["uuid"].lower())
        for one in found["partitions"]
    ] == [(one.label, one.offset_bytes, one.size_bytes, str(one.type_guid), str(one.guid)) for one in gpt.partitions]
    listed = subprocess.run(["sfdisk", "-l", tmp_path / "disk"], capture_output=True, text=True, check=True).stdout
    assert all(kind in listed for kind in ("Linux home", "Linux filesystem", "Linux server data"))


@pytest.mark.skipif(shutil.which("sfdisk") is None, reason="sfdisk (package fdisk) is not installed")
def test_a_table_of_sfdisk_is_read(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"")
    os.truncate(path, 40 << 20)
    script = b'label: gpt\nfirst-lba: 34\nsize=4MiB, name="a b", attrs="GUID:59"\nsize=8MiB, type=linux, name="c"\n'
    subprocess.run(["sfdisk", "-q", path], input=script, check=True, capture_output=True)
    with path.open("rb") as file:
        found = read_gpt(file.fileno()).partitions
    assert [(one.label, one.size_bytes, one.attributes) for one in found] == [
        ("a b", 4 << 20, 1 << 59),
        ("c", 8 << 20, 0),
    ]


def test_partitions_lie_one_after_the_other_and_the_last_takes_the_rest() -> None:
    gpt = plan([Wanted("a", 1), Wanted("b", 5 << 20), Wanted("c", None)], 64 << 20)
    first, second, last = gpt.partitions
    assert (first.offset_bytes, first.size_bytes) == (ALIGNMENT, ALIGNMENT)
    assert second.offset_bytes == 2 * ALIGNMENT
    assert last.offset_bytes + last.size_bytes == (64 << 20) - ALIGNMENT


@given(sizes=st.lists(st.integers(1, 1 << 40), min_size=1, max_size=16))
def test_a_file_of_the_least_size_holds_them_and_a_smaller_one_does_not(sizes: list[int]) -> None:
    wanted, least = [Wanted(f"p{at}", size) for at, size in enumerate(sizes)], least_disk_bytes(sizes)
    assert [one.size_bytes for one in plan(wanted, least).partitions] == [aligned(size) for size in sizes]
    with pytest.raises(InvalidArgument, match="do not fit"):
        plan(wanted, least - ALIGNMENT)


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


def mutated(chance: random.Random, good: bytes) -> bytearray:
    """Header and entries with a few bytes changed, most of them in fields that say where something is."""
    bad = bytearray(good)
    for _ in range(chance.randint(1, 4)):
        where = chance.choice((range(512, 608), range(1024, 1024 + 3 * 128), range(512, len(good))))
        value = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        bad[chance.choice(where)] = value
    return bad


def with_good_checksums(bad: bytearray) -> bytearray:
    """So that what is inside is looked at at all; the entries are as many as the header says, as far as they go."""
    header_bytes = min(max(struct.unpack_from("<I", bad, 524)[0], 92), 512)
    count = struct.unpack_from("<I", bad, 512 + 80)[0]
    struct.pack_into("<I", bad, 512 + 88, binascii.crc32(bad[1024 : 1024 + min(count, 128) * 128]))
    struct.pack_into("<I", bad, 528, 0)
    struct.pack_into("<I", bad, 528, binascii.crc32(bad[512 : 512 + header_bytes]))
    return bad


@pytest.mark.parametrize("repair", [lambda bad: bad, with_good_checksums], ids=["as it is", "checksums mended"])
def test_ten_thousand_mutated_headers_are_read_or_refused(
    tmp_path: Path, repair: Callable[[bytearray], bytearray]
) -> None:
    """What is read lies inside the file, apart from each other and from the table."""
    chance, size = random.Random(7), 8 << 20
    fd = disk(tmp_path / "disk", plan([Wanted("a", 1 << 20), Wanted("b", 2 << 20), Wanted("c", None)], size))
    good = os.pread(fd, 1024 + 128 * 128, 0)
    os.pwrite(fd, b"\0" * 512, size - 512)  # no backup to fall back on
    outcomes = Counter[str]()
    for _ in range(10_000):
        os.pwrite(fd, repair(mutated(chance, good)), 0)
        try:
            partitions = read_gpt(fd).partitions
        except InvalidArgument:
            outcomes["refused"] += 1
            continue
        outcomes["read"] += 1
        places = sorted((one.offset_bytes, one.offset_bytes + one.size_bytes) for one in partitions)
        ends = [(1024, 1024), *places, (size, size)]
        assert all(before[1] <= after[0] < after[1] or after[0] == size for before, after in pairwise(ends))
    os.close(fd)
    assert outcomes["refused"] > 3_000
    assert repair is not with_good_checksums or outcomes["read"] > 1_000


def test_a_table_in_sectors_of_4096_bytes_is_refused_for_that_reason(tmp_path: Path) -> None:
    gpt = single_partition(8 << 20)
    fd = disk(tmp_path / "disk", gpt)
    header = os.pread(fd, 512, 512)
    os.pwrite(fd, bytes(512) + header, 4096 - 512)
    os.pwrite(fd, bytes(512), 512)
    with pytest.raises(InvalidArgument, match="sectors of 4096 bytes"):
        read_gpt(fd)
    os.close(fd)


@pytest.mark.parametrize(
    ("first", "last"), [(2, 100), (34, 16383), (34, 2**63), (2**63, 2**63), (40, 39), (16351, 16351)]
)
def test_a_partition_outside_of_its_room_is_refused(tmp_path: Path, first: int, last: int) -> None:
    fd = disk(tmp_path / "disk", single_partition(8 << 20))
    raw = bytearray(os.pread(fd, 1024 + 128 * 128, 0))
    struct.pack_into("<QQ", raw, 1024 + 32, first, last)
    os.pwrite(fd, with_good_checksums(raw), 0)
    os.pwrite(fd, bytes(512), (8 << 20) - 512)
    with pytest.raises(InvalidArgument, match="a partition reaches from"):
        read_gpt(fd)
    os.close(fd)


@pytest.mark.parametrize(("count", "entry_bytes"), [(2**32 - 1, 128), (2**20, 128), (128, 2**31), (2**31, 2**31)])
def test_absurdly_many_entries_are_refused_without_reading_them(tmp_path: Path, count: int, entry_bytes: int) -> None:
    fd = disk(tmp_path / "disk", single_partition(1 << 30))
    raw = bytearray(os.pread(fd, 1024 + 128 * 128, 0))
    struct.pack_into("<II", raw, 512 + 80, count, entry_bytes)
    os.pwrite(fd, with_good_checksums(raw), 0)
    os.pwrite(fd, bytes(512), (1 << 30) - 512)
    tracemalloc.start()
    with pytest.raises(InvalidArgument, match="more than expected"):
        read_gpt(fd)
    assert tracemalloc.get_traced_memory()[1] < 1 << 18
    tracemalloc.stop()
    os.close(fd)


def test_partitions_that_overlap_are_refused(tmp_path: Path) -> None:
    one = Partition(uuid.uuid4(), uuid.uuid4(), ALIGNMENT, 2 * ALIGNMENT, "one")
    other = Partition(uuid.uuid4(), uuid.uuid4(), 2 * ALIGNMENT, 2 * ALIGNMENT, "other")
    fd = disk(tmp_path / "disk", Gpt(uuid.uuid4(), 8 << 20, (one, other)))
    with pytest.raises(InvalidArgument, match="'one' and 'other' overlap"):
        read_gpt(fd)
    os.close(fd)


@pytest.mark.parametrize("size", [0, 1, 511, 512, 1024, 17 * 1024])
def test_a_truncated_file_is_refused(tmp_path: Path, size: int) -> None:
    fd = disk(tmp_path / "disk", single_partition(8 << 20))
    os.ftruncate(fd, size)
    with pytest.raises(InvalidArgument):
        read_gpt(fd)
    os.close(fd)
