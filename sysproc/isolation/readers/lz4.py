"""LZ4 blocks (lz4_Block_format.md): literals, then a copy of what came before, and so on.

As erofs uses them: how long the output is is known, and what would come after that is not looked at.
"""

from sysproc.isolation.readers.source import broken

_LEAST_COPY, _LONG = 4, 15


def decompressed(block: bytes, length: int) -> bytes:
    """The first bytes of what is in a block."""
    out, at = bytearray(), 0
    try:
        while len(out) < length:
            token = block[at]
            count, at = _number(block, at + 1, token >> 4)
            if at + count > len(block):
                raise broken("compressed data ends too early")
            out += block[at : at + count]
            at += count
            if len(out) >= length:
                break
            back = block[at] | block[at + 1] << 8
            count, at = _number(block, at + 2, token & _LONG)
            _copy(out, back, min(count + _LEAST_COPY, length - len(out)))
    except IndexError:
        raise broken("compressed data ends too early") from None
    return bytes(out[:length])


def _number(block: bytes, at: int, begin: int) -> tuple[int, int]:
    """A length that may go on in further bytes, and what is behind it."""
    if begin < _LONG:
        return begin, at
    while block[at] == 0xFF:
        begin, at = begin + 0xFF, at + 1
    return begin + block[at], at + 1


def _copy(out: bytearray, back: int, count: int) -> None:
    if not 0 < back <= len(out):
        raise broken("compressed data refers to what is before its beginning")
    piece = bytes(out[-back:]) if back < len(out) else bytes(out)
    out += (piece * -(-count // back))[:count]
