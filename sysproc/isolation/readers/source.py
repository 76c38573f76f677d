"""The bytes of an image, and which of its blocks something has already: no block is two things at once.

What the blocks mean is known by the readers beside this one.
"""

import errno
import os
import struct

# Blocks that were taken are marked in pieces of so many, a byte each; a piece is there when one of its blocks is.
_PIECE = 32768


def broken(what: str) -> OSError:
    """The error for an image that is damaged, or was made to mislead."""
    return OSError(errno.EBADMSG, "damaged filesystem", f"the filesystem is damaged: {what}")


def unsupported(what: str) -> OSError:
    """The error for an image that has something which is not read here."""
    return OSError(errno.EOPNOTSUPP, "not supported", what)


def number(block: bytes, at: int, form: str) -> int:
    """One number of a structure; damaged if the structure ends before it."""
    try:
        value: int = struct.unpack_from(form, block, at)[0]
    except struct.error:
        raise broken(f"a structure of {len(block)} bytes ends before its byte {at}") from None
    return value


class Source:
    """A part of a file. Reads outside of it are refused; what is beyond the end of the file itself, too."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._fd, self._offset, self.size = fd, offset, size
        self._taken: dict[int, bytearray] = {}

    def read(self, at: int, length: int) -> bytes:
        """So many bytes from this one on."""
        if not 0 <= at <= at + length <= self.size:
            raise broken(f"{length} bytes at {at} are outside of its {self.size}")
        data = os.pread(self._fd, length, self._offset + at)
        if len(data) != length:
            raise broken(f"it is cut off before byte {at + length}")
        return data

    def take(self, first: int, count: int, what: str) -> None:
        """Say that these blocks are used now; they must not have been before."""
        at, end = first, first + count
        while at < end:
            piece, begin = divmod(at, _PIECE)
            stop = min(_PIECE, begin + end - at)
            marks = self._taken.setdefault(piece, bytearray(_PIECE))
            found = marks.find(1, begin, stop)
            if found >= 0:
                raise broken(f"block {piece * _PIECE + found} is used twice, by {what} the second time")
            marks[begin:stop] = b"\1" * (stop - begin)
            at += stop - begin
