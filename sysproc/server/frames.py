"""HTTP/2 frames as a client sends them, by their kinds: what each costs. Not what is in them (RFC 9113, 4.1).

    preface, 24 bytes │ length 24 bits, type, flags, stream: 9 bytes │ payload, skipped │ …

What does not look like HTTP/2 is passed on too: grpcio refuses it. How much a container may spend is decided by
`sysproc.server.throttle`.
"""

PREFACE_BYTES, HEADER_BYTES = 24, 9
DATA, HEADERS, WINDOW_UPDATE = 0, 1, 8
# What a frame costs, in calls: a call begins with HEADERS. Of the others there are honestly more (a stream of input
# or output needs one for each few KiB), but many for nothing are a flood, too: pings, settings, resets.
CALL, CARRIER, OTHER = 1.0, 0.01, 0.1
_COSTS = {DATA: CARRIER, HEADERS: CALL, WINDOW_UPDATE: CARRIER}


class Frames:
    """The frames of one connection; bytes go in as they come, and out up to where they are paid for."""

    def __init__(self) -> None:
        # Of the preface or a payload: passed on without a look.
        self._skip = PREFACE_BYTES

    def paid(self, data: bytes, at: int, credit: float) -> tuple[int, float]:
        """From a place in the data: how far it can be passed on for this credit, and what that costs.

        Stops before a frame that is not paid for, or whose header is not there as a whole: so the rest of the data
        comes again, with what follows.
        """
        end, cost = len(data), 0.0
        while True:
            step = min(self._skip, end - at)
            at, self._skip = at + step, self._skip - step
            if end - at < HEADER_BYTES:
                return at, cost
            price = _COSTS.get(data[at + 3], OTHER)
            if cost + price > credit:
                return at, cost
            cost += price
            self._skip = HEADER_BYTES + int.from_bytes(data[at : at + 3], "big")
