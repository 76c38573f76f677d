"""The streams of one connection: which are open, where in its messages each is, and what that makes the service hold.

    HEADERS ▸ open ▸ DATA: │ flag, length: 5 bytes │ message, skipped │ … ▸ the service ends it, or the client resets it

grpcio keeps a message in memory until it is complete, and a request until its call has ended, from each of thousands
of streams: so a container's last messages are counted until then, and a connection that goes beyond the bound is
closed. What single messages may have is grpcio's bound; what they cost is in `sysproc.server.frames`.
"""

PREFIX_BYTES = 5
# More than grpcio has open on a connection: it has refused the others, and the client does not read that.
MOST_OPEN = 4096


class Held:
    """What the service holds for the connections of one container, in bytes of messages."""

    def __init__(self, most: int) -> None:
        self.most, self.bytes = most, 0


class Stream:
    """prefix: of the next message, as far as it is there. left: of the message that arrives. held: of the last one.

    opened: its first message has begun, which is part of the call and of its price.
    """

    __slots__ = ("held", "left", "opened", "prefix")

    def __init__(self) -> None:
        self.prefix, self.left, self.held, self.opened = b"", 0, 0, False


class Streams:
    """The streams that a client has opened and the service has not ended yet."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self._open: dict[int, Stream] = {}
        self._newest = 0

    @property
    def excess(self) -> str:
        """Why this connection cannot go on, for people; empty if it can."""
        if len(self._open) > MOST_OPEN:
            return f"more than {MOST_OPEN} calls whose answers are not read"
        if self._held.bytes > self._held.most:
            return f"more than {self._held.most} bytes in messages of one container"
        return ""

    def begin(self, number: int) -> None:
        """HEADERS came; what grpcio does not take for a new stream is none (RFC 9113, 5.1.1)."""
        if number & 1 and number > self._newest:
            self._newest = number
            self._open[number] = Stream()

    def end(self, number: int) -> None:
        """One side has ended it for good; idempotent."""
        if (stream := self._open.pop(number, None)) is not None:
            self._held.bytes -= stream.held

    def close(self) -> None:
        """The connection is gone, and all that was held for it; idempotent."""
        for number in list(self._open):
            self.end(number)

    def received(self, number: int, data: bytes, at: int, end: int, most: int) -> tuple[int, int]:
        """Of DATA, from a place to another: how far it goes if so many more messages may begin, and how many did."""
        stream = self._open.get(number)
        if stream is None:
            return end, 0
        begun = 0
        while at < end:
            if stream.left:
                at = self._body(stream, at, end)
            elif stream.prefix:
                at = self._prefix(stream, data, at, end)
            elif begun < most or not stream.opened:
                begun += stream.opened
                at = self._begin(stream, data, at, end)
            else:
                break
        return at, begun

    def _begin(self, stream: Stream, data: bytes, at: int, end: int) -> int:
        self._held.bytes -= stream.held
        stream.held, stream.opened = 0, True
        return self._prefix(stream, data, at, end)

    def _body(self, stream: Stream, at: int, end: int) -> int:
        step = min(stream.left, end - at)
        stream.left -= step
        stream.held += step
        self._held.bytes += step
        return at + step

    def _prefix(self, stream: Stream, data: bytes, at: int, end: int) -> int:
        step = min(PREFIX_BYTES - len(stream.prefix), end - at)
        prefix = stream.prefix + data[at : at + step]
        if len(prefix) == PREFIX_BYTES:
            stream.left, prefix = int.from_bytes(prefix[1:], "big"), b""
        stream.prefix = prefix
        return at + step
