"""Extended attributes of ext4: behind the fields of an inode, and in one block that several inodes may share.

    inode    magic, entries … 0000      values at offsets from the first entry on, from the end backwards
    block    header of 32 bytes, entries … 0000      values at offsets from the block's beginning

Names have their prefix as a number. Access control lists are shorter here than the kernel shows them.
"""

import struct
from collections.abc import Iterator

from sysproc.crc32c import over
from sysproc.isolation.readers.ext4 import Ext4, Inode
from sysproc.isolation.readers.source import broken, number

_MAGIC = 0xEA020000
_BLOCK_HEADER, _ENTRY = 32, struct.Struct("<BBHIII")
_PREFIXES = {
    1: b"user.",
    2: b"system.posix_acl_access",
    3: b"system.posix_acl_default",
    4: b"trusted.",
    6: b"security.",
    7: b"system.",
    8: b"system.richacl",
}
_LISTS = (2, 3)
# What is in a small file or directory, behind the 60 bytes in the inode itself.
INLINE_DATA = b"system.data"
_ACL_ON_DISK, _ACL_SHOWN, _NO_ID = 1, 2, 0xFFFFFFFF
_WITH_ID = (0x02, 0x08)  # ACL_USER, ACL_GROUP


def attributes_of(fs: Ext4, inode: Inode) -> dict[bytes, bytes]:
    """All of an inode, by their whole names, those in the inode first."""
    found = dict(_in_inode(inode))
    if inode.attribute_block:
        found.update(_in_block(fs, inode))
    return found


def _in_inode(inode: Inode) -> Iterator[tuple[bytes, bytes]]:
    area = inode.raw[128 + inode.extra_bytes :]
    if inode.extra_bytes and len(area) >= 4 and number(area, 0, "<I") == _MAGIC:
        yield from _entries(inode, area[4:], 0)


def _in_block(fs: Ext4, inode: Inode) -> Iterator[tuple[bytes, bytes]]:
    block = fs.read_block(inode.attribute_block)
    if number(block, 0, "<I") != _MAGIC or number(block, 8, "<I") != 1:
        raise broken(f"the attributes of inode {inode.number}")
    if fs.has_checksums:
        blank = block[:0x10] + bytes(4) + block[0x14:]
        if over(over(fs.seed, struct.pack("<Q", inode.attribute_block)), blank) != number(block, 0x10, "<I"):
            raise broken(f"the checksum of the attributes of inode {inode.number} is wrong")
    yield from _entries(inode, block, _BLOCK_HEADER)


def _entries(inode: Inode, area: bytes, at: int) -> Iterator[tuple[bytes, bytes]]:
    while area[at : at + 4].strip(b"\0"):
        if at + _ENTRY.size > len(area):
            raise broken(f"an attribute of inode {inode.number} is cut off")
        length, prefix, value_at, in_inode, size, _ = _ENTRY.unpack_from(area, at)
        name = area[at + _ENTRY.size : at + _ENTRY.size + length]
        value = area[value_at : value_at + size]
        if in_inode or len(name) != length or len(value) != size or b"\0" in name:
            raise broken(f"an attribute of inode {inode.number} is outside of where it may be")
        if prefix not in _PREFIXES:
            raise broken(f"an attribute of inode {inode.number} has the unknown prefix {prefix}")
        yield _PREFIXES[prefix] + name, as_shown(value) if prefix in _LISTS else value
        at += _ENTRY.size + -(-length // 4) * 4


def as_shown(raw: bytes) -> bytes:
    """An access control list as the kernel shows it: each entry with an id, also where it has none."""
    if number(raw, 0, "<I") != _ACL_ON_DISK:
        raise broken("an access control list of another version")
    shown, at = struct.pack("<I", _ACL_SHOWN), 4
    while at < len(raw):
        tag, permissions = number(raw, at, "<H"), number(raw, at + 2, "<H")
        has_id = tag in _WITH_ID
        shown += struct.pack("<HHI", tag, permissions, number(raw, at + 4, "<I") if has_id else _NO_ID)
        at += 8 if has_id else 4
    return shown
