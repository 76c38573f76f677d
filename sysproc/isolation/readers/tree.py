"""The walk through a filesystem of any type: its entries in an order in which they can be made.

    directory, its files, then each directory in it          parents before what is in them
    a file of several names: the first time the file, then hard links to that
    a directory of two names: refused, it would be a cycle

Nothing recurses; what is remembered are the directories still to come, and the files of several names. Sockets are
left out, as every archiver does. Which trees there are: `ext4_tree` and `erofs` beside this.
"""

import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from sysproc.isolation.readers.source import Source, broken
from sysproc.isolation.tar_headers import Kind, Segment
from sysproc.isolation.tar_reader import COPY_BYTES, Entry

# PATH_MAX with its NUL; the root's slash apart.
MOST_PATH_BYTES = 4095
_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFCHR: Kind.DEVICE,
    stat.S_IFBLK: Kind.DEVICE,
}


@dataclass(frozen=True)
class Node:
    """What there is to know of a file besides its name and its data."""

    mode: int
    uid: int
    gid: int
    size: int
    links: int
    mtime_ns: int
    attributes: Mapping[bytes, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Chunk:
    """A part of a file: where in it; its bytes, or where in the source they are."""

    at: int
    data: bytes
    position: int
    length: int


class Tree(Protocol):
    """One filesystem."""

    root: int

    def node(self, number: int) -> Node:
        """A file by its number."""
        ...

    def entries(self, number: int) -> Iterator[tuple[bytes, int]]:
        """Names in a directory, and the numbers of what they name."""
        ...

    def link(self, number: int) -> bytes:
        """Where a symbolic link leads; asked once."""
        ...

    def chunks(self, number: int) -> Iterator[Chunk]:
        """The data of a file, in order, without its holes; asked once."""
        ...


class Entries:
    """The entries of a filesystem, as `sysproc.isolation.unpack` takes them: the data of each until the next one."""

    def __init__(self, tree: Tree, source: Source) -> None:
        self._tree, self._source = tree, source
        self._chunk, self._given = Chunk(0, b"", 0, 0), 0
        self._directories: set[int] = set()
        self._names: dict[int, bytes] = {}

    def __iter__(self) -> Iterator[Entry]:
        waiting = [(b"/", self._tree.root)]
        while waiting:
            path, number = waiting.pop()
            yield self._directory(path, number)
            for name, child in self._tree.entries(number):
                below = joined(path, name)
                node = self._tree.node(child)
                if stat.S_ISDIR(node.mode):
                    waiting.append((below, child))
                elif not stat.S_ISSOCK(node.mode):
                    yield self._file(below, child, node)

    def data(self, length: int) -> Iterator[bytes]:
        """The next bytes of the current segment."""
        while length:
            block = self._taken(min(length, COPY_BYTES))
            length -= len(block)
            yield block

    def _taken(self, length: int) -> bytes:
        at, chunk = self._given, self._chunk
        if at + length > chunk.length:
            raise broken("the data of a file ends too early")
        self._given += length
        return chunk.data[at : at + length] if chunk.data else self._source.read(chunk.position + at, length)

    def _directory(self, path: bytes, number: int) -> Entry:
        if number in self._directories:
            raise broken(f"directory {number} is in two places")
        self._directories.add(number)
        node = self._tree.node(number)
        if not stat.S_ISDIR(node.mode):
            raise broken(f"{number} is no directory")
        return entry(path, Kind.DIRECTORY, node)

    def _file(self, path: bytes, number: int, node: Node) -> Entry:
        if number in self._names:
            return entry(path, Kind.HARD_LINK, node, self._names[number])
        if node.links > 1:
            self._names[number] = path
        kind = _KINDS.get(stat.S_IFMT(node.mode))
        if kind is None:
            raise broken(f"{number} is nothing that a file can be: mode {node.mode:o}")
        link = checked_link(number, self._tree.link(number)) if kind is Kind.SYMLINK else b""
        return entry(path, kind, node, link, self._segments(number) if kind is Kind.FILE else ())

    def _segments(self, number: int) -> Iterator[Segment]:
        """While each is the current one its data can be had."""
        for chunk in self._tree.chunks(number):
            self._chunk, self._given = chunk, 0
            yield chunk.at, chunk.length


def checked_link(number: int, link: bytes) -> bytes:
    """Where a link leads, if a link can lead there."""
    if not 0 < len(link) <= MOST_PATH_BYTES or b"\0" in link:
        raise broken(f"{number} is a link that leads nowhere")
    return link


def joined(path: bytes, name: bytes) -> bytes:
    """A name in a directory. EBADMSG if Linux knows no such path."""
    below = path.rstrip(b"/") + b"/" + name
    if len(below) > MOST_PATH_BYTES:
        raise broken("its directories are deeper than any path can be")
    return below


def entry(path: bytes, kind: Kind, node: Node, link: bytes = b"", segments: Iterable[Segment] = ()) -> Entry:
    """As those of an archive."""
    return Entry(
        name=path,
        kind=kind,
        link=link,
        mode=node.mode & 0o7777,
        uid=node.uid,
        gid=node.gid,
        mtime_ns=node.mtime_ns,
        size=node.size if kind is Kind.FILE else 0,
        segments=segments,
        attributes=node.attributes,
    )
