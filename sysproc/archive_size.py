"""How large an archive is without its compression, and how large a filesystem is made for it.

Pure: bytes and sizes go in, sizes come out. Making the filesystem is the business of `sysproc.images`.
"""

import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from sysproc.errors import InvalidArgument
from sysproc.isolation.decompression import GZIP_MAGIC, XZ_MAGIC, ZSTD_MAGIC
from sysproc.storage.vsf.gpt import ALIGNMENT
from sysproc.tar_counter import FILESYSTEM_BLOCK, TarCounter, TarCounts
from sysproc.unzstd import Unzstd

MIB = 1 << 20
MAX_ROOT_BYTES = 1 << 44
INODE_BYTES = 256
# Never fewer than mke2fs makes in the first room: one for each 4096 bytes below 512 MiB, for each 16384 above.
LEAST_INODES = 20_000
# Of a name in its directory, more than most have.
_NAME_BYTES = 64
# What follows a stream is copied when that ends; there may be very many in a chunk.
_PIECE = 16 << 10
# After so much others have their turn; what is unpacked at once, 32 MiB at most, may come on top.
STEP_BYTES = 16 << 20
_ZLIB_GZIP = 31
# Of the daemon, for one archive: xz -9 takes 65 MiB.
_XZ_MEMORY = 1 << 27


class Counting(Protocol):
    """One way to compress."""

    def unpacked(self, piece: bytes) -> Iterator[bytes]:
        """What the next bytes become, bit by bit. Any of BROKEN for what it is not."""
        ...


class PlainCounting:
    """None."""

    def unpacked(self, piece: bytes) -> Iterator[bytes]:
        """What they are."""
        yield piece


class GzipCounting:
    """Members, one after the other, with zeros between them perhaps (RFC 1952, pigz, cat)."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_ZLIB_GZIP)

    def unpacked(self, piece: bytes) -> Iterator[bytes]:
        """See above."""
        while piece := self._in_member(piece):
            yield self._member.decompress(piece, MIB)
            piece = self._member.unconsumed_tail or self._member.unused_data

    def _in_member(self, piece: bytes) -> bytes:
        """What is left to decompress."""
        if self._member.eof and (piece := piece.lstrip(b"\0")):
            self._member = zlib.decompressobj(_ZLIB_GZIP)
        return piece


class XzCounting:
    """Streams, one after the other, with padding between them (the .xz file format)."""

    def __init__(self) -> None:
        self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)

    def unpacked(self, piece: bytes) -> Iterator[bytes]:
        """See above."""
        while piece or not (self._stream.eof or self._stream.needs_input):
            if self._stream.eof:
                piece = piece.lstrip(b"\0")
                if not piece:
                    break
                self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
            yield self._stream.decompress(piece, MIB)
            piece = self._stream.unused_data if self._stream.eof else b""


class ZstdCounting:
    """Frames, one after the other (RFC 8878)."""

    def __init__(self) -> None:
        self._frames = Unzstd()

    def unpacked(self, piece: bytes) -> Iterator[bytes]:
        """See above."""
        yield from self._frames.unpacked(piece)


_KINDS: dict[bytes, Callable[[], Counting]] = {
    GZIP_MAGIC: GzipCounting,
    XZ_MAGIC: XzCounting,
    ZSTD_MAGIC: ZstdCounting,
}
BROKEN = (zlib.error, lzma.LZMAError, InvalidArgument)


class ArchiveCounter:
    """Counts how large a stream is without its compression, while it comes in; a plain tar is as large as it is.

    Raises InvalidArgument when that is more than any root may have, long before the end of what never ends. tar: counts
    what is in it besides, for who wants to know.
    """

    def __init__(self, tar: TarCounter | None = None) -> None:
        self._counted, self._undecided, self._step_end = 0, b"", STEP_BYTES
        self._counting: Counting | None = None
        self._tar = tar

    @property
    def unpacked_bytes(self) -> int:
        """Of what has come so far."""
        return self._counted + len(self._undecided)

    @property
    def tar(self) -> TarCounts | None:
        """What is in it, by its headers, if that is counted and they are understood."""
        return self._tar.counts if self._tar else None

    def feed(self, chunk: bytes) -> Iterator[None]:
        """The next bytes, step by step: a few of them may unpack to very much.

        What is broken counts as it is, and is refused when it is unpacked.
        """
        if self._counting is None:
            self._undecided += chunk
            if len(self._undecided) < len(XZ_MAGIC):
                return
            chunk, self._undecided = self._undecided, b""
            self._counting = counting_of(chunk)
        for at in range(0, len(chunk), _PIECE):
            yield from self._feed_piece(self._counting, chunk[at : at + _PIECE])

    def _feed_piece(self, counting: Counting, piece: bytes) -> Iterator[None]:
        try:
            for more in counting.unpacked(piece):
                self._counted += len(more)
                if self._tar:
                    self._tar.feed(more)
                if self._counted >= self._step_end:
                    self._step_end = self._counted + STEP_BYTES
                    yield
        except BROKEN:
            self._counting = PlainCounting()
            self._counted += len(piece)
        if self._counted > MAX_ROOT_BYTES:
            raise too_large_unpacked()


def counting_of(beginning: bytes) -> Counting:
    """How the stream that begins so is compressed."""
    return next((made() for magic, made in _KINDS.items() if beginning.startswith(magic)), PlainCounting())


@dataclass(frozen=True)
class Room:
    """How large a VSF is for a tar: by its bytes, and by how many of them there are for each inode (None: mke2fs's)."""

    percent: int
    bytes_per_inode: int | None

    def image_bytes(self, tar_bytes: int) -> int:
        """As `wanted_bytes`. Raises InvalidArgument for more than a root may have."""
        wanted = self.wanted_bytes(tar_bytes)
        if wanted > MAX_ROOT_BYTES:
            raise too_large_unpacked()
        return wanted

    def wanted_bytes(self, tar_bytes: int) -> int:
        """Besides the tar's own bytes room for ext4's tables."""
        wanted = tar_bytes * self.percent // 100 + 24 * MIB + (self.inodes(tar_bytes) or 0) * INODE_BYTES
        return -(-wanted // MIB) * MIB + 2 * ALIGNMENT

    def inodes(self, tar_bytes: int) -> int | None:
        """How many files there may be."""
        return None if self.bytes_per_inode is None else max(tar_bytes // self.bytes_per_inode, LEAST_INODES)


# The first is enough for most. A file of one byte has 1024 in a tar and 4096 in ext4, an empty directory 512 and 4096.
ROOMS = (Room(125, None), Room(250, 2048), Room(500, 1024), Room(1000, 512))


@dataclass(frozen=True)
class CountedRoom:
    """For what was counted, and never less than the first of `ROOMS` has."""

    counts: TarCounts

    def image_bytes(self, tar_bytes: int) -> int:
        """As `Room.image_bytes`."""
        entries = self.counts.entries
        # Whatever sizes the headers say: no more than has come.
        files = min(self.counts.blocks * FILESYSTEM_BLOCK, tar_bytes + entries * FILESYSTEM_BLOCK)
        stored = files + entries * (INODE_BYTES + _NAME_BYTES)
        return max(ROOMS[0].image_bytes(tar_bytes), Room(110, None).image_bytes(stored))

    def inodes(self, tar_bytes: int) -> int | None:
        """How many files there may be, where mke2fs makes too few by itself."""
        size, wanted = self.image_bytes(tar_bytes), self.counts.entries * 9 // 8 + LEAST_INODES // 8
        return wanted if wanted > mke2fs_inodes(size) else None


def mke2fs_inodes(size: int) -> int:
    """How many it makes for a filesystem of this size (mke2fs.conf(5), `small` and `default`), or a few less."""
    return size // (4096 if size < 512 * MIB else 16384) * 15 // 16


AnyRoom = Room | CountedRoom


def rooms_for(tar_bytes: int, counts: TarCounts | None) -> Sequence[AnyRoom]:
    """Those to be tried, one after the other; the first is enough for what has an entry for each directory.

    Raises InvalidArgument when not even that is one that a root may have.
    """
    first = ROOMS[0] if counts is None else CountedRoom(counts)
    least = first.image_bytes(tar_bytes)
    others = ROOMS[1:] if counts is None else [room for room in ROOMS if room.wanted_bytes(tar_bytes) > least]
    return (first, *(room for room in others if room.wanted_bytes(tar_bytes) <= MAX_ROOT_BYTES))


def too_large_unpacked() -> InvalidArgument:
    """The error for an archive that fits into no root."""
    return InvalidArgument(
        "The archive is too large.",
        details=f"Unpacked, in a filesystem, it takes more than the {MAX_ROOT_BYTES} bytes that a root may have.",
        resolution="Send a smaller one.",
        reason="BAD_ARCHIVE",
    )
