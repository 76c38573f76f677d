"""HTTP/2 frames by their kinds: what each costs that a client sends, and which end streams (RFC 9113, 4.1).

    preface, 24 bytes │ length 24 bits, type, flags, stream: 9 bytes │ payload: of DATA messages, else skipped │ …

What does not look like HTTP/2 is passed on too: grpcio refuses it; as it does padded DATA. How much a container may
spend is decided by `sysproc.server.throttle`, what messages are is in `sysproc.server.streams`.
"""

from struct import Struct

from sysproc.server.streams import Streams

PREFACE_BYTES, HEADER_BYTES = 24, 9
DATA, HEADERS, RESET, WINDOW_UPDATE = 0, 1, 3, 8
END_STREAM, PADDED = 1, 8
HEADER = Struct(">BHBBL")
# Of a stream; the bit above it is reserved.
NUMBER = 2**31 - 1
# What a frame costs, in calls: a call begins with HEADERS, and its first message is part of it. Of the others there are
# honestly more (a stream of input or output needs one for each few KiB), but many for nothing are a flood, too: pings,
# settings, resets. Further messages in DATA cost besides: a frame can have thousands, and each is work for the
# interpreter (input for a process: 0.4 ms of processor time, a call 0.6).
CALL, CARRIER, OTHER, MESSAGE = 1.0, 0.01, 0.1, 0.5
_COSTS = {DATA: CARRIER, HEADERS: CALL, WINDOW_UPDATE: CARRIER}


class Frames:
    """The frames that one client sends; bytes go in as they come, and out up to where they are paid for.

    unpaid: what the next thing costs if the last bytes stopped for want of credit; 0 if for want of bytes.
    """

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        # Of the preface or a payload; 0 is the stream of what is passed on without a look.
        self._left, self._stream = PREFACE_BYTES, 0
        self.unpaid = 0.0

    def paid(self, data: bytes, at: int, credit: float) -> tuple[int, float]:
        """From a place in the data: how far it can be passed on for this credit, and what that costs.

        Stops before a frame or message that is not paid for, or a header that is not there as a whole: so the rest of
        the data comes again, with what follows.
        """
        cost, self.unpaid = 0.0, 0.0
        while True:
            at, price = self._payload(data, at, credit - cost)
            cost += price
            if self._left or len(data) - at < HEADER_BYTES:
                self.unpaid = MESSAGE if self._left and at < len(data) else 0.0
                return at, cost
            price = _COSTS.get(data[at + 3], OTHER)
            if cost + price > credit:
                self.unpaid = price
                return at, cost
            cost += price
            self._header(data, at)
            at += HEADER_BYTES

    def _payload(self, data: bytes, at: int, credit: float) -> tuple[int, float]:
        end, messages = min(at + self._left, len(data)), 0
        begin = at
        if self._stream:
            at, messages = self._streams.received(self._stream, data, at, end, int(credit / MESSAGE))
        else:
            at = end
        self._left -= at - begin
        return at, messages * MESSAGE

    def _header(self, data: bytes, at: int) -> None:
        high, low, kind, flags, stream = HEADER.unpack_from(data, at)
        stream &= NUMBER
        self._left, self._stream = high << 16 | low, 0
        if kind == DATA and not flags & PADDED:
            self._stream = stream
        elif kind == HEADERS:
            self._streams.begin(stream)
        elif kind == RESET:
            self._streams.end(stream)


class Answers:
    """The frames that the service sends on one connection, read for the streams that they end."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._left, self._header = 0, b""

    def read(self, data: bytes) -> None:
        """What was sent next; all of it goes on."""
        at, end = 0, len(data)
        while at < end:
            if self._left:
                step = min(self._left, end - at)
                self._left -= step
            else:
                step = min(HEADER_BYTES - len(self._header), end - at)
                self._header += data[at : at + step]
                if len(self._header) == HEADER_BYTES:
                    self._frame()
            at += step

    def _frame(self) -> None:
        high, low, kind, flags, stream = HEADER.unpack(self._header)
        self._left, self._header = high << 16 | low, b""
        if kind == RESET or (kind in (DATA, HEADERS) and flags & END_STREAM):
            self._streams.end(stream & NUMBER)
