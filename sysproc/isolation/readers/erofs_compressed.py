"""Compressed files of erofs: which block has which part of a file (fs/erofs/zmap.c), and what is in it.

    header    8 bytes: how the index is written, which algorithm
    index     for each 4 KiB of the file: whether a block begins in it, where; or that it goes on
              in full 8 bytes each; or compacted: 2 for 8 bytes, or 16 for 32, with one block number for all of them

Read is what mkfs.erofs makes by default: LZ4, each part in one block. Larger blocks, and parts within inodes or shared
between files, are refused. Files that are not compressed are in `sysproc.isolation.readers.erofs`.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from sysproc.isolation.readers.lz4 import decompressed
from sysproc.isolation.readers.source import Source, broken, number, unsupported
from sysproc.isolation.readers.tree import Chunk

FULL, COMPACT = 1, 3
_HEADER_BYTES, _FULL_PADDING = 8, 8
_SMALL_PACKS = 0x1
_ADVICE = {0x2: "big pclusters", 0x4: "big pclusters", 0x8: "inline data", 0x10: "interlaced data", 0x20: "fragments"}
_ALGORITHMS = {1: "lzma", 2: "deflate", 3: "zstd"}
_PLAIN, _CONTINUES, _SECOND = 0, 2, 3
_LEAST_OFFSET_BITS = 12
# In packs: how many entries, and bytes of each with their share of the block number.
_PAIR, _MANY = (2, 4), (16, 2)
# A file that nobody has room for would take as long to be unpacked.
_MOST_BYTES = 1 << 40


@dataclass(frozen=True)
class _Part:
    """Where in the file a block's data begins, and the block."""

    at: int
    block: int
    kind: int


class CompressedFile:
    """One file. index_at: where what is behind its inode and attributes begins, aligned to 8 bytes."""

    def __init__(self, source: Source, block_bytes: int, layout: int, index_at: int, size: int) -> None:
        self._source, self._block_bytes, self._size = source, block_bytes, size
        header = source.read(index_at, _HEADER_BYTES)
        self._advice, self._algorithms, cluster = number(header, 4, "<H"), header[6], header[7]
        refused = [name for bit, name in _ADVICE.items() if self._advice & bit]
        if refused or cluster & ~7:
            raise unsupported(f"the filesystem has {(refused or ['fragments'])[0]}, which are not read here")
        if size > _MOST_BYTES:
            raise broken(f"a compressed file claims {size} bytes")
        self._cluster_bits = block_bytes.bit_length() - 1 + cluster
        self._count = -(-size >> self._cluster_bits)
        self._index_at = index_at + _HEADER_BYTES + (_FULL_PADDING if layout == FULL else 0)
        self._layout = layout

    def chunks(self) -> Iterator[Chunk]:
        """What is in it, part by part."""
        for part, following in pairwise(self._parts()):
            length = following.at - part.at
            if length < 0:
                raise broken("the parts of a compressed file are out of order")
            if length:
                yield Chunk(part.at, self._data(part, length), 0, length)

    def _data(self, part: _Part, length: int) -> bytes:
        block = self._source.read(part.block * self._block_bytes, self._block_bytes)
        if part.kind == _PLAIN:
            if length > len(block):
                raise broken("a part that is not compressed is larger than its block")
            return block[:length]
        algorithm = self._algorithms >> 4 if part.kind == _SECOND else self._algorithms & 15
        if algorithm:
            name = _ALGORITHMS.get(algorithm, f"algorithm {algorithm}")
            raise unsupported(f"the filesystem is compressed with {name}, which is not read here")
        return decompressed(block.lstrip(b"\0"), length)  # it is at the end of its block

    def _parts(self) -> Iterator[_Part]:
        """All, and behind the last one the end of the file."""
        entries = self._full() if self._layout == FULL else self._compacted()
        first = True
        for cluster, (kind, low, block) in enumerate(entries):
            if kind == _CONTINUES:
                if first:
                    raise broken("a compressed file begins in the middle of a part")
                continue
            if low >= 1 << self._cluster_bits or (first and low):
                raise broken("a part of a compressed file begins outside of where it may")
            first = False
            yield _Part(min((cluster << self._cluster_bits) + low, self._size), block, kind)
        yield _Part(self._size, 0, _PLAIN)

    def _full(self) -> Iterator[tuple[int, int, int]]:
        for index in range(self._count):
            advice, low, block = struct.unpack("<HHI", self._source.read(self._index_at + index * 8, 8))
            yield advice & 3, low, block

    def _compacted(self) -> Iterator[tuple[int, int, int]]:
        """Pairs until a multiple of 32 bytes is reached, then perhaps many packed smaller, then pairs again."""
        pairs = min((32 - self._index_at % 32) % 32 // 4, self._count)
        many = (self._count - pairs) // 16 * 16 if self._advice & _SMALL_PACKS else 0
        at = self._index_at
        for count, form in ((pairs, _PAIR), (many, _MANY), (self._count - pairs - many, _PAIR)):
            for done in range(0, count, form[0]):
                yield from self._pack(at, form, min(form[0], count - done))
                at += form[0] * form[1]

    def _pack(self, at: int, form: tuple[int, int], wanted: int) -> Iterator[tuple[int, int, int]]:
        """The entries of one pack, bit by bit; blocks are numbered on from the one that it names."""
        count, each = form
        raw = self._source.read(at, count * each)
        width = (count * each - 4) * 8 // count
        bits, block = int.from_bytes(raw[:-4], "little"), number(raw, len(raw) - 4, "<I")
        offset_bits = max(self._cluster_bits, _LEAST_OFFSET_BITS)
        for index in range(wanted):
            entry = bits >> index * width
            kind = entry >> offset_bits & 3
            block += kind != _CONTINUES
            yield kind, entry & (1 << offset_bits) - 1, block & 0xFFFFFFFF
