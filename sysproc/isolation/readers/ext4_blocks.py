"""Where the blocks of an ext4 inode are: by extents, or by the older map of blocks.

    extents     the root in the inode, then a tree of blocks, at most five levels; sorted by the place in the file
    map         12 blocks, then blocks of block numbers, of blocks of block numbers, and so once more

Both come out as runs, in the order of the file, those that were never written left out. Each block is taken: one
that two files have, or a tree that comes back to itself, is refused.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from sysproc.crc32c import over
from sysproc.isolation.readers.ext4 import Ext4, Inode
from sysproc.isolation.readers.source import broken, number

_EXTENT_MAGIC = 0xF30A
_HEADER, _ENTRY = struct.Struct("<HHHHI"), 12
_MOST_DEPTH = 5
# Longer ones are allocated, and were not written yet.
_LONGEST = 32768
_DIRECT, _LEVELS = 12, 3


@dataclass(frozen=True)
class Run:
    """Consecutive blocks: where in the file, where in the filesystem, how many."""

    at: int
    block: int
    count: int


def runs_of(fs: Ext4, inode: Inode) -> Iterator[Run]:
    """What was written of an inode, in order."""
    what = f"inode {inode.number}"
    for run, written in _extents(fs, inode) if inode.has_extents else _mapped(fs, inode):
        fs.check_blocks(run.block, run.count)
        fs.source.take(run.block, run.count, what)
        if written:
            yield run


# -- extents


def _extents(fs: Ext4, inode: Inode) -> Iterator[tuple[Run, bool]]:
    end = 0
    for run, written in _in_node(fs, inode, inode.root, None):
        if run.at < end:
            raise broken(f"the extents of inode {inode.number} overlap, or are out of order")
        end = run.at + run.count
        yield run, written


def _in_node(fs: Ext4, inode: Inode, node: bytes, level: int | None) -> Iterator[tuple[Run, bool]]:
    """The extents below a node. level: how many levels are below it; None is the root, which says so itself."""
    magic, count, most, depth, _ = _HEADER.unpack_from(node)
    if magic != _EXTENT_MAGIC or depth > _MOST_DEPTH or depth != (depth if level is None else level):
        raise broken(f"the tree of extents of inode {inode.number}")
    if not count <= most <= (len(node) - _HEADER.size) // _ENTRY:
        raise broken(f"a node of inode {inode.number} claims {count} of {most} extents")
    for at in range(_HEADER.size, _HEADER.size + count * _ENTRY, _ENTRY):
        if depth:
            block = number(node, at + 4, "<I") | number(node, at + 8, "<H") << 32
            yield from _in_node(fs, inode, _node(fs, inode, block), depth - 1)
        else:
            yield _extent(node, at)


def _extent(node: bytes, at: int) -> tuple[Run, bool]:
    first, length, high, low = struct.unpack_from("<IHHI", node, at)
    written = length <= _LONGEST
    return Run(first, low | high << 32, length if written else length - _LONGEST), written


def _node(fs: Ext4, inode: Inode, block: int) -> bytes:
    """A block of the tree, whose checksum is behind the room for its entries."""
    node = fs.read_block(block)
    fs.source.take(block, 1, f"the extents of inode {inode.number}")
    if fs.has_checksums:
        tail = _HEADER.size + number(node, 4, "<H") * _ENTRY
        if over(inode.seed, node[:tail]) != number(node, tail, "<I"):
            raise broken(f"the checksum of extents of inode {inode.number} is wrong")
    return node


# -- the older map


def _mapped(fs: Ext4, inode: Inode) -> Iterator[tuple[Run, bool]]:
    """Consecutive blocks become one run."""
    run: Run | None = None
    blocks = -(-inode.size // fs.block_bytes)
    for at, block in _numbers(fs, inode, blocks):
        if run is not None and (run.at + run.count, run.block + run.count) == (at, block):
            run = Run(run.at, run.block, run.count + 1)
            continue
        if run is not None:
            yield run, True
        run = Run(at, block, 1)
    if run is not None:
        yield run, True


def _numbers(fs: Ext4, inode: Inode, blocks: int) -> Iterator[tuple[int, int]]:
    """Places in the file and their blocks, where there are some."""
    root = struct.unpack("<15I", inode.root)
    for at in range(min(_DIRECT, blocks)):
        if root[at]:
            yield at, root[at]
    at, per_block = _DIRECT, fs.block_bytes // 4
    for level in range(1, _LEVELS + 1):
        if at < blocks:
            yield from _below(fs, inode, root[_DIRECT + level - 1], level, at, blocks)
        at += per_block**level


def _below(fs: Ext4, inode: Inode, block: int, level: int, at: int, blocks: int) -> Iterator[tuple[int, int]]:
    """What is below a block of block numbers, the first of which is for this place of the file."""
    if not block:
        return
    raw = fs.read_block(block)
    fs.source.take(block, 1, f"the block map of inode {inode.number}")
    each: int = (fs.block_bytes // 4) ** (level - 1)
    for index, child in enumerate(struct.unpack(f"<{fs.block_bytes // 4}I", raw)):
        place = at + index * each
        if not child or place >= blocks:
            continue
        if level > 1:
            yield from _below(fs, inode, child, level - 1, place, blocks)
        else:
            yield place, child
