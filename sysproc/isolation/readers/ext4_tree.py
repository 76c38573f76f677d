"""An ext4 filesystem as a tree of entries (`sysproc.isolation.readers.tree`)."""

from collections.abc import Iterator

from sysproc.isolation.readers.ext4 import ROOT_INODE, Ext4, Inode
from sysproc.isolation.readers.ext4_attributes import INLINE_DATA, attributes_of
from sysproc.isolation.readers.ext4_blocks import runs_of
from sysproc.isolation.readers.ext4_directory import entries_of
from sysproc.isolation.readers.source import Source, broken, unsupported
from sysproc.isolation.readers.tree import MOST_PATH_BYTES, Chunk, Node

_FAST_LINK_BYTES = 60


class Ext4Tree:
    """What the walk asks."""

    root = ROOT_INODE

    def __init__(self, source: Source) -> None:
        self._fs = Ext4(source)

    def node(self, number: int) -> Node:
        """What stat(2) and listxattr(2) would say."""
        inode = self._fs.inode(number)
        if inode.is_encrypted:
            raise unsupported("the filesystem has encrypted files (fscrypt)")
        if not inode.links or not inode.mode:
            raise broken(f"inode {number} has a name, and is free")
        attributes = attributes_of(self._fs, inode)
        attributes.pop(INLINE_DATA, None)
        return Node(inode.mode, inode.uid, inode.gid, inode.size, inode.links, inode.mtime_ns, attributes)

    def entries(self, number: int) -> Iterator[tuple[bytes, int]]:
        """Of a directory."""
        return entries_of(self._fs, self._fs.inode(number))

    def chunks(self, number: int) -> Iterator[Chunk]:
        """Of a file."""
        inode, block_bytes = self._fs.inode(number), self._fs.block_bytes
        if inode.is_inline:
            yield Chunk(0, self._inline(inode), 0, inode.size)
            return
        for run in runs_of(self._fs, inode):
            length = min(run.count * block_bytes, inode.size - run.at * block_bytes)
            if length > 0:
                yield Chunk(run.at * block_bytes, b"", run.block * block_bytes, length)

    def _inline(self, inode: Inode) -> bytes:
        data = inode.root + attributes_of(self._fs, inode).get(INLINE_DATA, b"")
        if len(data) < inode.size:
            raise broken(f"inode {inode.number} claims {inode.size} bytes, and has {len(data)} in itself")
        return data[: inode.size]

    def link(self, number: int) -> bytes:
        """Where a symbolic link leads."""
        inode = self._fs.inode(number)
        if inode.size > MOST_PATH_BYTES:
            raise broken(f"inode {number} is a link of {inode.size} bytes")
        if inode.is_inline:
            return self._inline(inode)
        if inode.size < _FAST_LINK_BYTES:
            return inode.root[: inode.size]
        return b"".join(self._fs.source.read(chunk.position, chunk.length) for chunk in self.chunks(number))
