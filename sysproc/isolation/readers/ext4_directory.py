"""Directories of ext4: entries one after the other in each block. The tree of hashes beside them is not needed.

    inode  rec_len  name_len  type  name            inode 0: room that is free

The blocks of the tree look like one free entry; with checksums, each other block has one behind its entries.
"""

import struct
from collections.abc import Iterator

from sysproc.crc32c import over
from sysproc.isolation.readers.ext4 import Ext4, Inode
from sysproc.isolation.readers.ext4_attributes import INLINE_DATA, attributes_of
from sysproc.isolation.readers.ext4_blocks import runs_of
from sysproc.isolation.readers.source import broken, number

_HEADER = 8
_TAIL = struct.Struct("<IHBBI")
_TAIL_TYPE = 0xDE
_PARENT_BYTES = 4


def entries_of(fs: Ext4, inode: Inode) -> Iterator[tuple[bytes, int]]:
    """Names and inodes, without `.` and `..`; no name twice."""
    seen = set()
    for name, child in _all(fs, inode):
        if name in (b".", b".."):
            continue
        if not name or b"/" in name or b"\0" in name:
            raise broken(f"directory {inode.number} has the name {name!r}")
        if name in seen:
            raise broken(f"directory {inode.number} has {name!r} twice")
        seen.add(name)
        yield name, child


def _all(fs: Ext4, inode: Inode) -> Iterator[tuple[bytes, int]]:
    if inode.is_inline:
        yield from _in_block(fs, inode, inode.root[_PARENT_BYTES:])
        yield from _in_block(fs, inode, attributes_of(fs, inode).get(INLINE_DATA, b""))
        return
    blocks = -(-inode.size // fs.block_bytes)
    for run in runs_of(fs, inode):
        for block in range(run.block, run.block + min(run.count, max(0, blocks - run.at))):
            raw = fs.read_block(block)
            if fs.has_checksums:
                _check(inode, raw)
            yield from _in_block(fs, inode, raw)


def _check(inode: Inode, block: bytes) -> None:
    """The checksum at the end of a block, if it is one of entries: blocks of the tree have theirs elsewhere."""
    if _is_of_the_tree(block):
        return
    unused, length, zero, kind, stored = _TAIL.unpack_from(block, len(block) - _TAIL.size)
    if (unused, length, zero, kind) != (0, _TAIL.size, 0, _TAIL_TYPE):
        raise broken(f"a block of directory {inode.number} has no checksum")
    if over(inode.seed, block[: -_TAIL.size]) != stored:
        raise broken(f"the checksum of a block of directory {inode.number} is wrong")


def _is_of_the_tree(block: bytes) -> bool:
    """Its root has `.` and `..`, which reaches to the end; its other blocks one free entry."""
    first = record_bytes(number(block, 4, "<H"), len(block))
    second = record_bytes(number(block, 16, "<H"), len(block))
    return (number(block, 0, "<I") == 0 and first == len(block)) or (first == 12 and second == len(block) - 12)


def _in_block(fs: Ext4, inode: Inode, block: bytes) -> Iterator[tuple[bytes, int]]:
    at = 0
    while at < len(block):
        length = record_bytes(number(block, at + 4, "<H"), len(block))
        name_bytes = block[at + 6] if fs.has_filetype else number(block, at + 6, "<H")
        if length < _HEADER + name_bytes or length % 4 or at + length > len(block):
            raise broken(f"an entry of directory {inode.number} has {length} bytes")
        child = number(block, at, "<I")
        if child:
            yield block[at + _HEADER : at + _HEADER + name_bytes], child
        at += length


def record_bytes(stored: int, block_bytes: int) -> int:
    """The length of an entry; in blocks of 64 KiB it has to fit into 16 bits."""
    if block_bytes < 1 << 16:
        return stored
    return block_bytes if stored in (0, 0xFFFF) else (stored & 0xFFFC) | (stored & 3) << 16
