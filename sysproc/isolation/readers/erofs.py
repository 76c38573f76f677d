"""erofs (Documentation/filesystems/erofs.rst, fs/erofs/erofs_fs.h).

    byte 1024                     superblock
    meta_blkaddr + 32 · number    inode, of 32 or 64 bytes; attributes; perhaps its last, or only, data
    raw_blkaddr                   its whole blocks; or, by chunks, where its inode says

Compressed files are read by `sysproc.isolation.readers.erofs_compressed`. Directories are in `entries`: in each block
first all entries, then all names. Files may share chunks, so nothing is taken: what one could be made to unpack to is
bounded by the filesystem that it is unpacked into.
"""

import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from sysproc.crc32c import over
from sysproc.isolation.readers.erofs_compressed import COMPACT, FULL, CompressedFile
from sysproc.isolation.readers.source import Source, broken, number, unsupported
from sysproc.isolation.readers.tree import MOST_PATH_BYTES, Chunk, Node

_SUPERBLOCK_AT, _MAGIC = 1024, 0xE0F5E1E2
_LOG_BLOCKS = range(9, 17)
_CHECKSUM_AT, _HAS_CHECKSUM = 4, 0x1
_REFUSED = {0x8: "several devices", 0x10: "ztailpacking", 0x20: "fragments", 0x40: "xattr_prefixes", 0x80: "48bit"}
# What says how compressed files are compressed, and chunks.
_READ = 0x1 | 0x2 | 0x4
_PLAIN, _INLINE, _CHUNKED = 0, 2, 4
_COMPRESSED = (FULL, COMPACT)
_COMPACT_BYTES, _EXTENDED_BYTES, _NUMBER_BYTES = 32, 64, 32
_ATTRIBUTE_HEADER, _SHARED_AT = 12, 4
_PREFIXES = {
    1: b"user.",
    2: b"system.posix_acl_access",
    3: b"system.posix_acl_default",
    4: b"trusted.",
    6: b"security.",
}
_DIRENT = struct.Struct("<QHBB")
_CHUNK_BITS, _CHUNK_INDEXES, _NO_BLOCK = 0x1F, 0x20, 0xFFFFFFFF
NS = 10**9


@dataclass(frozen=True)
class _Inode:
    """An inode; body: where its attributes begin. address: of its blocks, or how its chunks are."""

    number: int
    layout: int
    node: Node
    body: int
    attribute_bytes: int
    address: int

    @property
    def tail(self) -> int:
        """What is behind its attributes."""
        return self.body + self.attribute_bytes


class ErofsTree:
    """What the walk asks (`sysproc.isolation.readers.tree`)."""

    def __init__(self, source: Source) -> None:
        self._source = source
        block = source.read(_SUPERBLOCK_AT, 128)
        if number(block, 0, "<I") != _MAGIC or block[12] not in _LOG_BLOCKS:
            raise broken("there is no superblock")
        self._block_bytes = 1 << block[12]
        refused = [
            _REFUSED.get(1 << bit, f"{1 << bit:#x}") for bit in range(32) if number(block, 80, "<I") & ~_READ & 1 << bit
        ]
        if refused:
            raise unsupported(f"the filesystem has features that are not read here: {', '.join(refused)}")
        if number(block, 8, "<I") & _HAS_CHECKSUM:
            self._check(number(block, _CHECKSUM_AT, "<I"))
        self.root = number(block, 14, "<H")
        self._built_ns = number(block, 24, "<Q") * NS + min(number(block, 32, "<I"), NS - 1)
        self._inodes_at, self._attributes_at = (number(block, at, "<I") * self._block_bytes for at in (40, 44))

    def _check(self, stored: int) -> None:
        """Of the rest of the block that the superblock is in."""
        if self._block_bytes <= _SUPERBLOCK_AT:
            raise unsupported("the filesystem has a checksum over blocks of 1024 bytes or less")
        covered = bytearray(self._source.read(_SUPERBLOCK_AT, self._block_bytes - _SUPERBLOCK_AT))
        covered[_CHECKSUM_AT : _CHECKSUM_AT + 4] = bytes(4)
        if over(0xFFFFFFFF, bytes(covered)) != stored:
            raise broken("the checksum of the superblock is wrong")

    # -- inodes

    def node(self, which: int) -> Node:
        """What stat(2) and listxattr(2) would say."""
        return self._inode(which).node

    def _inode(self, which: int) -> _Inode:
        at = self._inodes_at + which * _NUMBER_BYTES
        layout = number(self._source.read(at, 2), 0, "<H")
        extended, layout = layout & 1, layout >> 1
        raw = self._source.read(at, _EXTENDED_BYTES if extended else _COMPACT_BYTES)
        if layout not in (_PLAIN, _INLINE, _CHUNKED, *_COMPRESSED):
            raise broken(f"inode {which} has the unknown layout {layout}")
        count = number(raw, 2, "<H")
        attribute_bytes = _ATTRIBUTE_HEADER + (count - 1) * 4 if count else 0
        body = at + len(raw)
        node = self._extended(raw) if extended else self._compact(raw)
        attributes = dict(self._attributes(which, body, attribute_bytes))
        node = Node(node.mode, node.uid, node.gid, node.size, node.links, node.mtime_ns, attributes)
        return _Inode(which, layout, node, body, attribute_bytes, number(raw, 16, "<I"))

    def _compact(self, raw: bytes) -> Node:
        mode, links, size = struct.unpack_from("<HHI", raw, 4)
        uid, gid = struct.unpack_from("<HH", raw, 24)
        return Node(mode, uid, gid, size, links, self._built_ns)

    def _extended(self, raw: bytes) -> Node:
        size, _, _, uid, gid, seconds, nanoseconds, links = struct.unpack_from("<QIIIIqII", raw, 8)
        return Node(number(raw, 4, "<H"), uid, gid, size, links, seconds * NS + min(nanoseconds, NS - 1))

    # -- attributes

    def _attributes(self, which: int, at: int, length: int) -> Iterator[tuple[bytes, bytes]]:
        """Those of its own, and by their numbers those that several have."""
        if not length:
            return
        area = self._source.read(at, length)
        own = _ATTRIBUTE_HEADER + area[_SHARED_AT] * 4
        for shared in range(_ATTRIBUTE_HEADER, own, 4):
            yield self._shared(which, number(area, shared, "<I"))
        while own + 4 <= length:
            size, name, value = attribute_at(which, area[own:])
            yield name, value
            own += -(-size // 4) * 4

    def _shared(self, which: int, index: int) -> tuple[bytes, bytes]:
        at = self._attributes_at + index * 4
        head = self._source.read(at, 4)
        _, name, value = attribute_at(which, self._source.read(at, 4 + head[0] + number(head, 2, "<H")))
        return name, value

    # -- data

    def link(self, which: int) -> bytes:
        """Where a symbolic link leads."""
        inode = self._inode(which)
        if inode.node.size > MOST_PATH_BYTES:
            raise broken(f"inode {which} is a link of {inode.node.size} bytes")
        return self._data(inode, 0, inode.node.size)

    def chunks(self, which: int) -> Iterator[Chunk]:
        """The data of a file; what is in no block is a hole."""
        inode = self._inode(which)
        if inode.layout == _CHUNKED:
            yield from self._by_chunks(inode)
            return
        if inode.layout in _COMPRESSED:
            index_at = -(-inode.tail // 8) * 8
            yield from CompressedFile(self._source, self._block_bytes, inode.layout, index_at, inode.node.size).chunks()
            return
        whole = self._whole_bytes(inode)
        if whole:
            yield Chunk(0, b"", inode.address * self._block_bytes, whole)
        if whole < inode.node.size:
            yield Chunk(whole, b"", inode.tail, inode.node.size - whole)

    def _whole_bytes(self, inode: _Inode) -> int:
        """How much of it is in blocks; the rest is behind the inode."""
        if inode.layout == _PLAIN:
            return inode.node.size
        return max(0, (inode.node.size - 1) // self._block_bytes * self._block_bytes)

    def _by_chunks(self, inode: _Inode) -> Iterator[Chunk]:
        chunk_bytes = self._block_bytes << (inode.address & _CHUNK_BITS)
        entry_bytes, size = 8 if inode.address & _CHUNK_INDEXES else 4, inode.node.size
        table = -(-inode.tail // entry_bytes) * entry_bytes
        for index in range(-(-size // chunk_bytes)):
            entry = self._source.read(table + index * entry_bytes, entry_bytes)
            block, at = number(entry, entry_bytes - 4, "<I"), index * chunk_bytes
            if block != _NO_BLOCK:
                yield Chunk(at, b"", block * self._block_bytes, min(chunk_bytes, size - at))

    def _data(self, inode: _Inode, at: int, length: int) -> bytes:
        """A part of a directory or link, which is not in chunks, and not across the end of its whole blocks."""
        if inode.layout not in (_PLAIN, _INLINE):
            raise broken(f"inode {inode.number} is no file, and in chunks or compressed")
        whole = self._whole_bytes(inode)
        if at < whole:
            first = self._source.read(inode.address * self._block_bytes + at, min(length, whole - at))
            return first + (self._source.read(inode.tail, length - len(first)) if length > len(first) else b"")
        return self._source.read(inode.tail + at - whole, length)

    def entries(self, which: int) -> Iterator[tuple[bytes, int]]:
        """Of a directory, without `.` and `..`; no name twice."""
        inode, seen = self._inode(which), set()
        if not stat.S_ISDIR(inode.node.mode):
            raise broken(f"{which} is no directory")
        for at in range(0, inode.node.size, self._block_bytes):
            block = self._data(inode, at, min(self._block_bytes, inode.node.size - at))
            for name, child in dirents(which, block):
                if name in seen or b"/" in name or not name:
                    raise broken(f"directory {which} has the name {name!r}, or has it twice")
                seen.add(name)
                if name not in (b".", b".."):
                    yield name, child


def attribute_at(which: int, area: bytes) -> tuple[int, bytes, bytes]:
    """One attribute: how long it is, its whole name, its value."""
    if len(area) < 4 or area[1] not in _PREFIXES:
        raise broken(f"an attribute of inode {which}")
    size = 4 + area[0] + number(area, 2, "<H")
    name = area[4 : 4 + area[0]]
    if size > len(area) or b"\0" in name:
        raise broken(f"an attribute of inode {which} is cut off")
    return size, _PREFIXES[area[1]] + name, area[4 + area[0] : size]


def dirents(which: int, block: bytes) -> Iterator[tuple[bytes, int]]:
    """Names and numbers of one block of a directory: the first name begins where the entries end."""
    end = number(block, 8, "<H")
    if not _DIRENT.size <= end <= len(block) or end % _DIRENT.size:
        raise broken(f"a block of directory {which} claims {end} bytes of entries")
    found = [_DIRENT.unpack_from(block, at) for at in range(0, end, _DIRENT.size)]
    stops = [one[1] for one in found[1:]] + [len(block)]
    for (child, start, _, _), stop in zip(found, stops, strict=True):
        if not end <= start <= stop <= len(block):
            raise broken(f"a name of directory {which} is outside of its block")
        yield block[start:stop].partition(b"\0")[0], child
