"""An image as pieces, in order and without a gap: as bytes or as frames of Zstandard; and its digest.

    0        1 MiB     2 MiB           …                        the end
    |  data  |  data   |  zeros, however many MiB  |  data …  |

A piece is one MiB with data in it (the last may be shorter), or a run of whole MiB of zeros. As Zstandard (RFC 8878)
each is frames of its own, so that a transfer may go on at any; a run of zeros has frames of blocks that are one byte,
repeated. All pieces behind each other are a file that any zstd reads. The digest is that of the MiB's digests, so that
zeros cost nothing and pieces that were checked need not be looked at again.
"""

import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import zstandard

PIECE_BYTES = 1 << 20
# At once of zeros: their frame has 32 KiB then.
MOST_ZEROS = 1 << 30
_ZERO_PIECE = bytes(PIECE_BYTES)
_LEVEL = 3
# Magic; a header without size, checksum and dictionary; a window of 128 KiB.
_FRAME_HEADER = struct.pack("<IBB", 0xFD2FB528, 0, (17 - 10) << 3)
_BLOCK_BYTES, _RLE = 1 << 17, 1


@dataclass(frozen=True)
class Piece:
    """Some of an image; data is empty for zeros."""

    offset: int
    size: int
    data: bytes


def pieces(fd: int, size: int, offset: int) -> Iterator[Piece]:
    """Those of a file from an offset on, where one begins. Blocks."""
    at = offset
    while at < size:
        start = next_data(fd, at, size)
        while at < start:
            run = min(start - at, MOST_ZEROS)
            yield Piece(at, run, b"")
            at += run
        if at < size:
            data = os.pread(fd, min(PIECE_BYTES, size - at), at)
            yield Piece(at, len(data), b"" if data == _ZERO_PIECE[: len(data)] else data)
            at += len(data)


def next_data(fd: int, at: int, size: int) -> int:
    """The beginning of the next MiB with data in it, or the end."""
    try:
        found = os.lseek(fd, at, os.SEEK_DATA)
    except OSError:  # ENXIO: there is none
        return size
    return max(at, found // PIECE_BYTES * PIECE_BYTES)


def compressed(piece: Piece) -> bytes:
    """A piece as whole frames. Blocks."""
    if piece.data:
        return zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(piece.data)
    return zeros_compressed(piece.size)


@lru_cache(maxsize=8)
def zeros_compressed(size: int) -> bytes:
    """So many zeros as one frame."""
    whole, rest = divmod(size, _BLOCK_BYTES)
    sizes = [_BLOCK_BYTES] * whole + [rest] * bool(rest)
    last = len(sizes) - 1
    blocks = (struct.pack("<I", one << 3 | _RLE << 1 | (at == last)) for at, one in enumerate(sizes))
    return _FRAME_HEADER + b"".join(blocks)  # the fourth byte of each is the one that is repeated


class ImageDigest:
    """SHA-256 over the SHA-256 of each MiB, in order."""

    def __init__(self) -> None:
        self._whole = hashlib.sha256()

    def add(self, piece: Piece) -> None:
        """The next one."""
        if piece.data:
            self._whole.update(hashlib.sha256(piece.data).digest())
            return
        whole, rest = divmod(piece.size, PIECE_BYTES)
        self._whole.update(zero_digest(PIECE_BYTES) * whole)
        if rest:
            self._whole.update(zero_digest(rest))

    def digest(self) -> bytes:
        """Of what was added."""
        return self._whole.digest()


@lru_cache(maxsize=64)
def zero_digest(size: int) -> bytes:
    """Of so many zeros."""
    return hashlib.sha256(bytes(size)).digest()


def digest_of(fd: int, size: int) -> bytes:
    """That of a whole file. Blocks."""
    digest = ImageDigest()
    for piece in pieces(fd, size, 0):
        digest.add(piece)
    return digest.digest()
