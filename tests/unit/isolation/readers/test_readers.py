"""Readers of filesystems: what is in them comes out, and what is wrong with them is said in words.

That everything of a file comes along, and is made elsewhere, is in tests/kernel/test_volume_remake.py; random damage in
`test_mutated_headers` beside this.
"""

import errno
import struct

import pytest

from sysproc.isolation.readers.lz4 import decompressed
from tests.unit.isolation.readers.images import (
    EROFS_OPTIONS,
    NOT_READ,
    OPTIONS,
    SUPERBLOCK,
    changed,
    erofs_summed,
    image,
    read,
)

BLOCK = 1024
EROFS_ROOT = SUPERBLOCK + 14


def field(data: bytes, at: int, form: str = "<I") -> int:
    value: int = struct.unpack_from(form, data, at)[0]
    return value


@pytest.mark.parametrize("name", [*OPTIONS, *(name for name in EROFS_OPTIONS if name != NOT_READ)])
def test_files_come_out_as_they_went_in(name: str) -> None:
    found = read(name, image(name))
    assert found[b"/small"] == b"hi" and found[b"/large"] == bytes(range(256)) * 1500
    assert len([one for one in found if one.startswith(b"/d/many/")]) == 60
    assert found[b"/sparse"].count(b"x") == 30_000 and found[b"/text"].endswith(b"line 19999\n")
    assert len(found[b"/text"].splitlines()) == 20_000


EXT4 = {
    "no magic": (0x38, "<H", 0, errno.EBADMSG, "no superblock"),
    "more blocks than bytes": (0x04, "<I", 1 << 30, errno.EBADMSG, "claims 1073741824 blocks"),
    "absurd blocks": (0x18, "<I", 60, errno.EBADMSG, "2\\^70 bytes"),
    "no groups": (0x20, "<I", 0, errno.EBADMSG, "groups have absurd sizes"),
    "no inodes in a group": (0x28, "<I", 0, errno.EBADMSG, "groups have absurd sizes"),
    "inodes of 100 bytes": (0x58, "<H", 100, errno.EBADMSG, "inodes have 100 bytes"),
    "inodes larger than blocks": (0x58, "<H", 4096, errno.EBADMSG, "inodes have 4096 bytes"),
    "descriptors of 7 bytes": (0xFE, "<H", 7, errno.EBADMSG, "descriptors have 7 bytes"),
    "encryption": (0x60, "<I", 0x10000 | 0x80 | 0x40 | 0x2, errno.EOPNOTSUPP, "encrypt"),
    "a journal device": (0x60, "<I", 0x8, errno.EOPNOTSUPP, "journal_dev"),
    "compression": (0x60, "<I", 0x1, errno.EOPNOTSUPP, "compression"),
    "what nobody knows yet": (0x60, "<I", 0x80000000, errno.EOPNOTSUPP, "0x80000000"),
    "a journal that is not empty": (0x60, "<I", 0x80 | 0x40 | 0x4 | 0x2, errno.EUCLEAN, "needs_recovery"),
}


@pytest.mark.parametrize("case", EXT4)
def test_a_superblock_of_ext4_that_makes_no_sense_is_refused_for_that(case: str) -> None:
    at, form, value, number, words = EXT4[case]
    with pytest.raises(OSError, match=words) as refused:
        read("ext4", changed(image("ext4"), SUPERBLOCK + at, value, form))
    assert refused.value.errno == number


def inode_at(data: bytes, number: int) -> int:
    """Where an inode of the first group is; blocks have 1 KiB."""
    return field(data, 2 * BLOCK + 8) * BLOCK + (number - 1) * field(data, SUPERBLOCK + 0x58, "<H")


@pytest.mark.parametrize("at", [SUPERBLOCK + 0x40, 2 * BLOCK + 4], ids=["superblock", "group descriptor"])
def test_with_checksums_a_byte_that_changed_is_noticed(at: int) -> None:
    data = bytearray(image("ext4"))
    data[at] ^= 1
    with pytest.raises(OSError, match="checksum") as refused:
        read("ext4", bytes(data))
    assert refused.value.errno == errno.EBADMSG


def test_with_checksums_an_inode_that_changed_is_noticed() -> None:
    data = bytearray(image("ext4"))
    data[inode_at(bytes(data), 2) + 4] ^= 1
    with pytest.raises(OSError, match="checksum of inode 2"):
        read("ext4", bytes(data))


def test_a_directory_that_is_in_itself_is_refused() -> None:
    """The entry of another directory is given the number of the root."""
    data = image("ext2")
    at = data.index(b"lost+found") - 8
    with pytest.raises(OSError, match="directory 2 is in two places"):
        read("ext2", changed(data, at, 2, "<I"))


def test_a_tree_of_blocks_that_comes_back_to_itself_is_refused() -> None:
    """The indirect block of a large file is said to be its own first one."""
    data = image("ext2")
    inode = next(at for at in (inode_at(data, one) for one in range(11, 200)) if field(data, at + 4) == 256 * 1500)
    indirect = field(data, inode + 0x28 + 13 * 4)
    with pytest.raises(OSError, match="used twice"):
        read("ext2", changed(data, indirect * BLOCK, indirect, "<I"))


def test_a_file_that_is_cut_off_is_refused() -> None:
    for name in (*OPTIONS, "erofs", "erofs by lz4"):
        for kept in (0, 1024, 2047, 5000):
            with pytest.raises(OSError, match=r"outside|superblock|cut off|claims") as refused:
                read(name, image(name)[:kept])
            assert refused.value.errno == errno.EBADMSG


EROFS = {
    "no magic": (0, "<I", 0, errno.EBADMSG, "no superblock"),
    "absurd blocks": (12, "B", 200, errno.EBADMSG, "no superblock"),
    "fragments": (80, "<I", 0x20, errno.EOPNOTSUPP, "fragments"),
    "several devices": (80, "<I", 0x8, errno.EOPNOTSUPP, "several devices"),
    "what nobody knows yet": (80, "<I", 1 << 31, errno.EOPNOTSUPP, "0x80000000"),
    "a root outside of it": (14, "<H", 0xFFFF, errno.EBADMSG, "outside of its"),
    "inodes outside of it": (40, "<I", 0xFFFFFFFF, errno.EBADMSG, "outside of its"),
}


@pytest.mark.parametrize("case", EROFS)
def test_a_superblock_of_erofs_that_makes_no_sense_is_refused_for_that(case: str) -> None:
    at, form, value, number, words = EROFS[case]
    at += SUPERBLOCK
    data = image("erofs")
    with pytest.raises(OSError, match=words) as refused:
        read("erofs", erofs_summed(data[:at] + struct.pack(form, value) + data[at + struct.calcsize(form) :]))
    assert refused.value.errno == number


def test_a_superblock_of_erofs_that_changed_is_noticed() -> None:
    data = bytearray(image("erofs"))
    data[SUPERBLOCK + 64] ^= 1
    with pytest.raises(OSError, match="checksum"):
        read("erofs", bytes(data))


def test_a_directory_that_says_to_be_compressed_is_refused() -> None:
    data = bytearray(image("erofs"))
    root = field(bytes(data), SUPERBLOCK + 40) * 4096 + field(bytes(data), EROFS_ROOT, "<H") * 32
    data[root] = data[root] & 1 | 1 << 1
    with pytest.raises(OSError, match="no file, and in chunks or compressed") as refused:
        read("erofs", erofs_summed(bytes(data)))
    assert refused.value.errno == errno.EBADMSG


def test_what_is_compressed_in_another_way_is_refused_for_that() -> None:
    with pytest.raises(OSError, match="big pclusters") as refused:
        read("erofs", image(NOT_READ))
    assert refused.value.errno == errno.EOPNOTSUPP


BLOCKS = {
    "nothing": b"",
    "literals that are not there": b"\xf0\xff\xff",
    "a copy from before the beginning": b"\x10a\x05\x00",
    "a copy from nowhere": b"\x10a\x00\x00",
    "an offset that is cut off": b"\x10a\x01",
    "an end that comes too early": b"\x10a",
}


@pytest.mark.parametrize("case", BLOCKS)
def test_compressed_data_that_makes_no_sense_is_refused(case: str) -> None:
    with pytest.raises(OSError, match="compressed data") as refused:
        decompressed(BLOCKS[case], 1000)
    assert refused.value.errno == errno.EBADMSG


def test_no_more_is_decompressed_than_is_asked_for() -> None:
    """One byte, then a copy of it as long as a block can say."""
    bomb = b"\x1fa\x01\x00" + b"\xff" * 4000 + b"\x00"
    assert decompressed(bomb, 10) == b"a" * 10
    assert decompressed(bomb, 1_000_000) == b"a" * 1_000_000
    with pytest.raises(OSError, match="ends too early"):
        decompressed(bomb, 2_000_000)
