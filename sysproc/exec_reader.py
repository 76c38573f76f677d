"""The readers of one output of an exec'd process: how far each is, and so what may be forgotten.

    kept ........ taken ........ at ........ offered ........ size
                  |              |           what it may have by now: a client can be quicker than we learn of it
                  |              what it was sent
                  what it has confirmed, or, if it never confirms, what it was sent

What all readers of a stream have taken may be freed; without readers nothing is. It is freed when the bound is
reached, by the supervisor (`exec_pump.c`); what they have confirmed also at the end (`sysproc.exec_kept`). The file
itself is read by `sysproc.isolation.spool`.
"""

from collections.abc import Callable

from sysproc.errors import OutOfRange
from sysproc.exec_events import Output, Stream
from sysproc.isolation.spool import Spool


class SharedOutput:
    """One stream and all who read it. wake: make the supervisor look at what was taken."""

    def __init__(self, stream: Stream, spool: Spool, bound: int, drops: bool, wake: Callable[[], None]) -> None:
        self.stream, self.spool = stream, spool
        self._bound, self._drops, self._wake = bound, drops, wake
        self._readers: set[Reader] = set()
        # All who were attached have said that they have what is before this offset.
        self.confirmed = 0

    def attach(self, offset: int | None) -> "Reader":
        """A new reader, from an offset or from the first byte that is kept. Raises OutOfRange."""
        kept, size = self.spool.freed, self.spool.size
        if offset is not None and (offset > size or (offset < kept and not self._drops)):
            raise out_of_range(self.stream, offset, kept, size)
        reader = Reader(self, max(kept, offset or 0))
        self._readers.add(reader)
        return reader

    def detach(self, reader: "Reader") -> None:
        """It reads no more: the others alone decide."""
        self._readers.discard(reader)
        self.free_taken()

    def free_taken(self) -> None:
        """Let the supervisor forget what all have taken."""
        if not self._readers:
            return
        self.spool.take(min(reader.taken for reader in self._readers))
        self.confirmed = max(self.confirmed, min(reader.confirmed for reader in self._readers))
        if self.spool.may_be_full(self._bound):
            self._wake()


class Reader:
    """Where one attached client is in one stream."""

    def __init__(self, output: SharedOutput, at: int) -> None:
        self._output, self._at, self._offered = output, at, at
        self._confirmed: int | None = None

    @property
    def taken(self) -> int:
        """What is before this offset is not needed by this reader."""
        return self._at if self._confirmed is None else self._confirmed

    @property
    def confirmed(self) -> int:
        """What is before this offset its client has, in its own words."""
        return self._confirmed or 0

    async def next(self) -> Output | None:
        """The next output, to be sent now, or None if there is none. From here on it may be confirmed."""
        piece = await self._output.spool.read(self._at)
        if piece is None:
            return None
        self._offered = piece.offset + len(piece.data)
        return Output(self._output.stream, piece.offset, piece.data)

    def sent(self, output: Output) -> None:
        """The client was sent this: if it never confirms, that is as good as confirmed."""
        self._at = output.offset + len(output.data)
        self._output.free_taken()

    def confirm(self, offset: int) -> None:
        """The client has what is before this offset. Raises OutOfRange if it was never sent."""
        if offset > self._offered:
            raise out_of_range(self._output.stream, offset, self._output.spool.freed, self._offered)
        self._confirmed = max(offset, self.confirmed)
        self._output.free_taken()

    def detach(self) -> None:
        """Read no more."""
        self._output.detach(self)


def out_of_range(stream: str, offset: int, kept: int, size: int) -> OutOfRange:
    """The error for an offset of an output that is not there."""
    return OutOfRange(
        f"There is no byte {offset} of {stream} any more, or not yet: {kept} to {size} are there.",
        resolution="Attach without an offset to read all that is kept.",
        reason="OUTPUT_OFFSET",
        metadata={"stream": stream, "kept_from": str(kept), "size": str(size)},
    )
