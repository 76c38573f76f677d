"""An image in pieces, as the API carries them: read from a file or a stream, checked, and the digest of the whole.

A piece is a MiB, or a run of zeros of whole MiB without data. What it is written to, and the calls, are in
`sysproc_client.volume_transfers`.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

PIECE_BYTES = 1 << 20
BLOCK_BYTES = 1 << 16
ZEROS = memoryview(bytes(PIECE_BYTES))
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class Piece:
    """Some bytes from an offset on; no data: so many zeros."""

    offset: int
    size: int
    data: bytes


def is_zeros(data: bytes | memoryview) -> bool:
    """Whether there is nothing but zeros, of a MiB at most."""
    return ZEROS[: len(data)] == data


def of_file(fd: int, size: int, offset: int) -> Iterator[Piece]:
    """Those of a regular file from an offset on; its holes are not read."""
    at = offset
    while at < size:
        start = next_data(fd, at, size)
        if start > at:
            yield Piece(at, start - at, b"")
        at = start
        if at < size:
            data = os.pread(fd, min(PIECE_BYTES, size - at), at)
            if not data:
                raise OSError("the file became shorter while it was read")
            yield Piece(at, len(data), b"" if is_zeros(data) else data)
            at += len(data)


def next_data(fd: int, at: int, size: int) -> int:
    """The beginning of the next MiB with data in it, or the end."""
    try:
        found = os.lseek(fd, at, os.SEEK_DATA)
    except OSError:  # ENXIO: there is none
        return size
    return min(size, max(at, found // PIECE_BYTES * PIECE_BYTES))


def of_stream(read: Callable[[int], bytes], *, sparse: bool) -> Iterator[Piece]:
    """Those of what is read to its end; sparse: zeros are left out."""
    at = 0
    while data := read_whole(read, PIECE_BYTES):
        yield Piece(at, len(data), b"" if sparse and is_zeros(data) else data)
        at += len(data)


def read_whole(read: Callable[[int], bytes], size: int) -> bytes:
    """So many bytes, fewer only at the end."""
    parts, left = [], size
    while left:
        data = bytes(memoryview(read(left)))  # TypeError for a file of text
        if not data:
            break
        parts.append(data)
        left -= len(data)
    return b"".join(parts)


def write_sparse(file: BinaryIO, piece: Piece) -> None:
    """Into a fresh file: zeros are left out."""
    view = memoryview(piece.data)
    for at in range(0, len(view), BLOCK_BYTES):
        block = view[at : at + BLOCK_BYTES]
        if not is_zeros(block):
            file.seek(piece.offset + at)
            file.write(block)


class Digests:
    """Of the pieces of an image, in whatever order they come, also twice; SHA-256 over those of each MiB."""

    def __init__(self) -> None:
        self._known: dict[int, bytes] = {}
        self._end = 0

    def add(self, piece: Piece) -> bytes:
        """One more; the digest of its data."""
        digest = hashlib.sha256(piece.data).digest()
        if piece.data:
            self._known[piece.offset] = digest
        self._end = max(self._end, piece.offset + piece.size)
        return digest

    def of_image(self) -> bytes:
        """Of the whole, up to the end of the last piece."""
        whole, at, zeros = hashlib.sha256(), 0, hashlib.sha256(ZEROS).digest()
        while at < self._end:
            size = min(PIECE_BYTES, self._end - at)
            whole.update(self._known.get(at) or (zeros if size == PIECE_BYTES else zeros_digest(size)))
            at += size
        return whole.digest()


def zeros_digest(size: int) -> bytes:
    """Of so many zeros."""
    return hashlib.sha256(ZEROS[:size]).digest()
