"""The output of one exec'd process as its readers see it: a file that only its supervisor writes.

    offset 0 ....... freed ............... size
             (hole)        (kept bytes)

`freed` stands in the state page and is raised before the hole is made: whoever reads looks at it after reading. The
writer is `exec_pump.c` in `sysproc.isolation.native`; who reads how far, and when that may be freed, is the business
of `sysproc.exec_reader`.
"""

import asyncio
import errno
import os
from dataclasses import dataclass

from sysproc.isolation.exec_state import Slot, StatePage

CHUNK = 256 * 1024
# Where the file is not in memory, or its filesystem cannot tell: the read may block, so it goes to a thread.
_WOULD_BLOCK = (errno.EAGAIN, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class Piece:
    """Consecutive bytes of a stream."""

    offset: int
    data: bytes


class Spool:
    """One stream: its file and its slots in the state page. The fd belongs to whoever made this."""

    def __init__(self, fd: int, page: StatePage, freed: Slot, taken: Slot) -> None:
        self._fd, self._page, self._freed, self._taken = fd, page, freed, taken

    @property
    def size(self) -> int:
        """How much was written so far: the offset of the next byte."""
        return os.fstat(self._fd).st_size

    @property
    def freed(self) -> int:
        """The first byte that is kept."""
        return self._page[self._freed]

    def take(self, offset: int) -> None:
        """All readers have what is before this offset; it never goes back."""
        self._page.set_taken(self._taken, offset)

    def may_be_full(self, bound: int) -> bool:
        """Whether the supervisor may be waiting for readers, and has to be told of what was taken."""
        return self.size - self.freed >= bound

    async def read(self, offset: int) -> Piece | None:
        """What is kept from the offset on, at most CHUNK bytes; None if nothing is there (yet).

        It may begin behind the offset: what is between is gone.
        """
        while (at := max(offset, self.freed)) < (size := self.size):
            data = await self._pread(min(CHUNK, size - at), at)
            lost = self.freed - at
            if lost < len(data):
                return Piece(at + max(lost, 0), data[max(lost, 0) :])
        return None

    async def _pread(self, length: int, offset: int) -> bytes:
        """Usually it is still in memory: preadv2(2) with RWF_NOWAIT, Linux 4.14, tells without waiting for a disk."""
        data = bytearray(length)
        try:
            got = os.preadv(self._fd, [data], offset, os.RWF_NOWAIT)
        except OSError as failure:
            if failure.errno not in _WOULD_BLOCK:
                raise
            return await asyncio.to_thread(os.pread, self._fd, length, offset)
        return bytes(memoryview(data)[:got])
