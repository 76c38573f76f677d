"""What a tar takes in a filesystem, counted by its headers while it comes in, so that the filesystem is made once.

It is a guess, and not trusted: directories that are only in names are not counted, attributes neither, and of what is
not understood, or has very many headers, there is no count at all: it is counted in the daemon, header by header.
A tar is read strictly by `sysproc.isolation.tar_reader`, in a jail; how large a filesystem is made is decided in
`sysproc.archive_size`.
"""

from dataclasses import dataclass

from sysproc.isolation.tar_headers import (
    BLOCK,
    GNU_LONG_LINK,
    GNU_LONG_NAME,
    GNU_SPARSE,
    PAX,
    PAX_GLOBAL,
    PAX_OF_SOLARIS,
    Kind,
    checksum_is_right,
    in_range,
    kind_of,
    number,
    text,
)

FILESYSTEM_BLOCK = 4096
# Some seconds of processor time; the root of a large distribution has half as many.
MOST_BLOCKS = 1 << 19
_ZEROS_AT_THE_END = 2
_EXTENDED = frozenset({GNU_LONG_LINK, GNU_LONG_NAME, PAX, PAX_GLOBAL, PAX_OF_SOLARIS})
_EMPTY = (Kind.HARD_LINK, Kind.DEVICE, Kind.FIFO)
# Of a header only what counts is decoded.
_NAME, _SIZE, _FLAG = slice(0, 100), slice(124, 136), slice(156, 157)
# Whether more of a sparse file's map follows: in its header, in a block after it.
_MORE_IN_HEADER, _MORE_IN_BLOCK = 482, 504


@dataclass(frozen=True)
class TarCounts:
    """entries: of any kind. blocks: of 4096 bytes, of files that are stored whole, directories and links."""

    entries: int
    blocks: int


class TarCounter:
    """Counts a stream without its compression."""

    def __init__(self) -> None:
        self._skipping, self._block = 0, bytearray()
        self._in_map, self._understood = False, True
        self._entries = self._blocks = self._read_blocks = self._zeros = 0

    @property
    def counts(self) -> TarCounts | None:
        """Of what has come so far; None if it is no tar, or one that is not understood or has too many headers."""
        return TarCounts(self._entries, self._blocks) if self._understood else None

    def feed(self, data: bytes) -> None:
        """The next bytes; of what comes after the end, or after what is not understood, none is looked at."""
        view = memoryview(data)
        while view and self._understood and self._zeros < _ZEROS_AT_THE_END:
            if self._skipping and not self._in_map:
                passed = min(self._skipping, len(view))
                self._skipping -= passed
            else:
                passed = min(BLOCK - len(self._block), len(view))
                self._block += view[:passed]
            view = view[passed:]
            if len(self._block) == BLOCK:
                self._read(bytes(self._block))
                self._block.clear()

    def _read(self, block: bytes) -> None:
        self._read_blocks += 1
        if self._read_blocks > MOST_BLOCKS:
            self._understood = False
        elif self._in_map:
            self._in_map = bool(block[_MORE_IN_BLOCK])
        elif any(block):
            self._zeros = 0
            self._read_header(block)
        else:
            self._zeros += 1

    def _read_header(self, block: bytes) -> None:
        try:
            self._understood = checksum_is_right(block)
            self._count(block, block[_FLAG], in_range(number(block[_SIZE]), "size"))
        except OSError:
            self._understood = False

    def _count(self, block: bytes, flag: bytes, size: int) -> None:
        padded = size + -size % BLOCK
        if flag in _EXTENDED:
            self._skipping = padded
            return
        kind = kind_of(flag, text(block[_NAME]))
        self._entries += 1
        if kind is Kind.FILE:
            self._skipping, self._in_map = padded, flag == GNU_SPARSE and bool(block[_MORE_IN_HEADER])
            self._blocks += -(-size // FILESYSTEM_BLOCK)
        elif kind not in _EMPTY:
            self._blocks += 1
