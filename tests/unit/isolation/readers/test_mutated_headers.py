"""Ten thousand damaged headers: each ends with what is in it, and no more than can be, or with an error in words.

    tables of partitions      checksums made right again      3000
    superblocks, anything     through the probe               2000
    ext2, ext4                superblock, descriptors, inodes 3000
    erofs                     superblock, inodes, indexes     2000

A hang is the end of the test by its timeout. Those of LUKS are ten thousand more:
tests/unit/storage/luks/test_hostile_headers.py.
"""

import binascii
import errno
import os
import random
import struct
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

from sysproc.errors import InvalidArgument
from sysproc.storage.vsf.clone import fresh_vsf
from sysproc.storage.vsf.disk import read_disk
from sysproc.storage.vsf.layout import Wanted, plan
from sysproc.storage.vsf.probe import probe
from tests.unit.isolation.readers.images import MIB, SUPERBLOCK, erofs_summed, image, memory_file, read, summed

SAID = {errno.EBADMSG, errno.EOPNOTSUPP, errno.EUCLEAN}
DISK_BYTES, HEAD_BYTES, BACKUP_BYTES = 5 * MIB, 32 << 10, 33 * 512
# Numbers that are at the edge of something.
EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutated(chance: random.Random, data: bytes, areas: list[tuple[int, int]]) -> bytes:
    """With some numbers of some areas, from and to a byte, changed to others."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        begin, end = chance.choice(areas)
        form = chance.choice("BHIQ")
        at = chance.randrange(begin, end - 8) & ~(struct.calcsize(form) - 1)
        bits = 8 * struct.calcsize(form)
        value = chance.choice((*EDGES, chance.getrandbits(bits), struct.unpack_from(f"<{form}", changed, at)[0] + 1))
        struct.pack_into(f"<{form}", changed, at, value & (1 << bits) - 1)
    return bytes(changed)


def disk() -> tuple[bytes, bytes]:
    """An empty disk with three partitions: its beginning, and its backup table."""
    fd = memory_file(b"")
    fresh_vsf(fd, plan([Wanted(name, MIB) for name in ("root", "home", "data")], DISK_BYTES))
    return os.pread(fd, HEAD_BYTES, 0), os.pread(fd, BACKUP_BYTES, DISK_BYTES - BACKUP_BYTES)


def table_summed(data: bytes) -> bytes:
    """With the checksums of the primary header and its entries as they would have to be."""
    header = bytearray(data[512:1024])
    size = min(max(struct.unpack_from("<I", header, 12)[0], 92), 512)
    at, count, each = struct.unpack_from("<QII", header, 72)
    if count * each <= MIB and (at + 1) * 512 <= len(data):
        struct.pack_into("<I", header, 88, binascii.crc32(data[at * 512 : at * 512 + count * each]))
    header[16:20] = bytes(4)
    struct.pack_into("<I", header, 16, binascii.crc32(header[:size]))
    return data[:512] + bytes(header) + data[1024:]


def outcome_of(look: Callable[[], object]) -> str:
    """How it ends; what is neither success nor an error in our words is raised."""
    try:
        look()
    except InvalidArgument as refused:
        return refused.reason
    return "taken"


@pytest.mark.parametrize("seed", range(3))
def test_a_thousand_mutated_partition_tables_are_taken_or_refused(seed: int) -> None:
    chance, (head, backup), ends = random.Random(seed), disk(), Counter[str]()
    for _ in range(1000):
        data = table_summed(mutated(chance, head, [(512, 608), (1024, 1024 + 4 * 128)]))
        size = DISK_BYTES - chance.choice((0, 0, 512, MIB))  # perhaps cut off
        fd = memory_file(data, size, backup if chance.random() < 0.5 else b"")
        ends[outcome_of(partial(read_disk, fd))] += 1
    assert set(ends) == {"taken", "VSF_BROKEN"} and min(ends.values()) > 50, ends


@pytest.mark.parametrize("name", ["ext4", "erofs"])
def test_a_thousand_mutated_superblocks_are_taken_or_refused_by_the_probe(name: str) -> None:
    chance, ends = random.Random(name), Counter[str]()
    start = image(name)[: 128 << 10]
    for _ in range(1000):
        data = mutated(chance, start, [(0, 512), (SUPERBLOCK, 2048), (65536, 66560)])
        ends[outcome_of(partial(probe, memory_file(data, 2 * MIB), 0, 2 * MIB))] += 1
    assert set(ends) == {"taken", "VSF_BROKEN"} and ends["taken"] > 50, ends


def read_outcome(name: str, data: bytes) -> str:
    try:
        read(name, data)
    except OSError as failure:
        if failure.errno not in SAID or not failure.filename:
            raise
        return "refused"
    return "taken"


@pytest.mark.parametrize("name", ["ext4", "ext4 without checksums", "ext2"])
def test_a_thousand_mutated_ext_filesystems_are_read_or_refused(name: str) -> None:
    chance, whole, ends = random.Random(name), image(name), Counter[str]()
    block = 1024 << struct.unpack_from("<I", whole, SUPERBLOCK + 0x18)[0]
    descriptors = max(2048, block)
    table = struct.unpack_from("<I", whole, descriptors + 8)[0] * block
    inode_bytes = struct.unpack_from("<H", whole, SUPERBLOCK + 0x58)[0]
    inodes = (table + inode_bytes, table + 24 * inode_bytes)
    first_data = table + 256 * inode_bytes
    areas = [(SUPERBLOCK, 2048), (descriptors, descriptors + 64), inodes, inodes, (first_data, len(whole))]
    for _ in range(1000):
        ends[read_outcome(name, summed(mutated(chance, whole, areas)))] += 1
    assert ends["refused"] > 50, ends


@pytest.mark.parametrize("name", ["erofs", "erofs by lz4"])
def test_a_thousand_mutated_erofs_are_read_or_refused(name: str) -> None:
    chance, whole, ends = random.Random(name), image(name), Counter[str]()
    areas = [(SUPERBLOCK, 1152), (1152, 16384), (1152, len(whole))]
    for _ in range(1000):
        ends[read_outcome(name, erofs_summed(mutated(chance, whole, areas)))] += 1
    assert ends["refused"] > 50, ends
