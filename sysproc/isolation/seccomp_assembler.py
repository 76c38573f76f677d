"""Classic BPF as seccomp(2) takes it: small functions that give pieces of a filter, each of which ends in an answer.

A piece is a sequence of instructions in which every way ends with a return, so that pieces can be put one after the
other without labels. What is decided is in `sysproc.isolation.seccomp_profiles`; loading is `sysproc.linux.seccomp`.
"""

import struct
from collections.abc import Mapping, Sequence

# struct sock_filter of linux/filter.h: code, jt, jf, k.
_INSTRUCTION = struct.Struct("=HBBI")
_LD_W_ABS, _ALU_AND_K, _RET_K, _JA = 0x20, 0x54, 0x06, 0x05
_JEQ_K, _JGE_K, _JSET_K = 0x15, 0x35, 0x45
_FURTHEST = 255  # of a conditional jump

# struct seccomp_data of linux/seccomp.h, on a little-endian machine.
NR, ARCH, _ARGUMENTS, _ARGUMENT_BYTES = 0, 4, 16, 8

_RET_ERRNO, _RET_ALLOW = 0x00050000, 0x7FFF0000

Piece = bytes


def _instruction(code: int, k: int, jt: int = 0, jf: int = 0) -> Piece:
    return _INSTRUCTION.pack(code, jt, jf, k)


def count(piece: Piece) -> int:
    """How many instructions."""
    return len(piece) // _INSTRUCTION.size


ALLOW: Piece = _instruction(_RET_K, _RET_ALLOW)


def refuse(number: int) -> Piece:
    """The call fails with this errno, and nothing is done."""
    return _instruction(_RET_K, _RET_ERRNO | number)


def load(offset: int) -> Piece:
    """What the following conditions look at: NR or ARCH."""
    return _instruction(_LD_W_ABS, offset)


def load_argument(index: int, *, high: bool = False) -> Piece:
    """The same for the lower (or higher) 32 bits of an argument of the call."""
    return load(_ARGUMENTS + _ARGUMENT_BYTES * index + (4 if high else 0))


def mask(bits: int) -> Piece:
    """Look at these bits only."""
    return _instruction(_ALU_AND_K, bits)


def _if(code: int, k: int, then: Piece, otherwise: Piece) -> Piece:
    length = count(then)
    if length <= _FURTHEST:
        return _instruction(code, k, 0, length) + then + otherwise
    return _instruction(code, k, 1, 0) + _instruction(_JA, length) + then + otherwise


def if_equal(value: int, then: Piece, otherwise: Piece) -> Piece:
    """Go on with `then` if what was loaded is this value."""
    return _if(_JEQ_K, value, then, otherwise)


def if_at_least(value: int, then: Piece, otherwise: Piece) -> Piece:
    """Go on with `then` if what was loaded is this value or more, unsigned."""
    return _if(_JGE_K, value, then, otherwise)


def if_any_bit(bits: int, then: Piece, otherwise: Piece) -> Piece:
    """Go on with `then` if any of these bits is set."""
    return _if(_JSET_K, bits, then, otherwise)


def if_among(values: Sequence[int], then: Piece, otherwise: Piece) -> Piece:
    """Go on with `then`, which is repeated for each, if what was loaded is one of the values."""
    piece = otherwise
    for value in reversed(values):
        piece = if_equal(value, then, piece)
    return piece


def search(table: Mapping[int, Piece], otherwise: Piece) -> Piece:
    """Go on with the piece that the table has for what was loaded: a binary search, as `otherwise` is the rule."""
    return _search(sorted(table.items()), otherwise)


def _search(items: Sequence[tuple[int, Piece]], otherwise: Piece) -> Piece:
    if not items:
        return otherwise
    if len(items) == 1:
        return if_equal(*items[0], otherwise)
    middle = len(items) // 2
    return if_at_least(items[middle][0], _search(items[middle:], otherwise), _search(items[:middle], otherwise))
