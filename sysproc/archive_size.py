"""How large an archive is without its compression, and how large a filesystem is made for it.

Pure: bytes and sizes go in, sizes come out. Making the filesystem is the business of `sysproc.images`.
"""

import zlib
from dataclasses import dataclass

from sysproc.errors import InvalidArgument
from sysproc.storage.vsf.gpt import ALIGNMENT

MIB = 1 << 20
MAX_ROOT_BYTES = 1 << 44
INODE_BYTES = 256
# Never fewer than mke2fs makes in the first room: one for each 4096 bytes below 512 MiB, for each 16384 above.
LEAST_INODES = 20_000
_GZIP_MAGIC = b"\x1f\x8b"
_ZLIB_GZIP = 31
# What follows a member is copied when it ends; there may be very many in a chunk.
_GZIP_PIECE = 16 << 10


class GzipCounter:
    """Counts how large a stream is without gzip, while it comes in; a plain tar is as large as it is.

    Raises InvalidArgument when that is more than any root may have, long before the end of what never ends.
    """

    def __init__(self) -> None:
        self.unpacked_bytes = 0
        self._first, self._plain = True, False
        self._gzip = zlib.decompressobj(_ZLIB_GZIP)

    def feed(self, chunk: bytes) -> None:
        """The next bytes; broken gzip counts as it is, and is refused when it is unpacked."""
        if self._first and chunk:
            self._plain, self._first = not _GZIP_MAGIC.startswith(chunk[:2]), False
        for at in range(0, len(chunk), _GZIP_PIECE):
            self._feed_piece(chunk[at : at + _GZIP_PIECE])
            if self.unpacked_bytes > MAX_ROOT_BYTES:
                raise too_large_unpacked()

    def _feed_piece(self, piece: bytes) -> None:
        if self._plain:
            self.unpacked_bytes += len(piece)
            return
        try:
            while piece := self._member(piece):
                self.unpacked_bytes += len(self._gzip.decompress(piece, MIB))
                piece = self._gzip.unconsumed_tail or self._gzip.unused_data
        except zlib.error:
            self._plain = True
            self.unpacked_bytes += len(piece)

    def _member(self, piece: bytes) -> bytes:
        """What is left to decompress; after one member, and zeros, comes the next (RFC 1952, pigz, cat)."""
        if self._gzip.eof and (piece := piece.lstrip(b"\0")):
            self._gzip = zlib.decompressobj(_ZLIB_GZIP)
        return piece


@dataclass(frozen=True)
class Room:
    """How large a VSF is for a tar: by its bytes, and by how many of them there are for each inode (None: mke2fs's)."""

    percent: int
    bytes_per_inode: int | None

    def image_bytes(self, tar_bytes: int) -> int:
        """Besides the tar's own bytes room for ext4's tables. Raises InvalidArgument for more than a root may have."""
        wanted = tar_bytes * self.percent // 100 + 24 * MIB + (self.inodes(tar_bytes) or 0) * INODE_BYTES
        rounded = -(-wanted // MIB) * MIB + 2 * ALIGNMENT
        if rounded > MAX_ROOT_BYTES:
            raise too_large_unpacked()
        return rounded

    def inodes(self, tar_bytes: int) -> int | None:
        """How many files there may be."""
        return None if self.bytes_per_inode is None else max(tar_bytes // self.bytes_per_inode, LEAST_INODES)


# The first is enough for most. A file of one byte has 1024 in a tar and 4096 in ext4, an empty directory 512 and 4096.
ROOMS = (Room(125, None), Room(250, 2048), Room(500, 1024), Room(1000, 512))


def too_large_unpacked() -> InvalidArgument:
    """The error for an archive that fits into no root."""
    return InvalidArgument(
        "The archive is too large.",
        details=f"Unpacked it has more than {MAX_ROOT_BYTES} bytes.",
        resolution="Send a smaller one.",
        reason="BAD_ARCHIVE",
    )
