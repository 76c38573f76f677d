"""How much one container may ask of the service: a bucket of tokens that all its connections share.

    a call costs a token; so many come back each second, up to the burst ──▶ without one its bytes wait in the relay,
    and the connection is not read: the client's writes block, and nobody else pays for it

The bytes of calls that are under way cost next to nothing, so that streams flow. What frames cost is in
`sysproc.server.frames`, what may be held of messages in `sysproc.server.streams`; connections are carried by
`sysproc.server.relay`. Large messages are refused by grpcio when it sees their length, before it has read them.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from sysproc.server.frames import Answers, Frames
from sysproc.server.streams import Held, Streams

# Timers are no finer; without it the loop would turn for nothing.
LEAST_WAIT_S = 0.001


@dataclass(frozen=True)
class Rate:
    """So many a second, and so many at once after a while without any."""

    per_second: float
    burst: float


class Bucket:
    """Tokens of one container, for one kind of thing. clock: in seconds."""

    def __init__(self, rate: Rate, clock: Callable[[], float]) -> None:
        self._rate, self._clock = rate, clock
        self._tokens, self._at = rate.burst, clock()

    @property
    def tokens(self) -> float:
        """What can be spent now."""
        now = self._clock()
        self._tokens = min(self._rate.burst, self._tokens + (now - self._at) * self._rate.per_second)
        self._at = now
        return self._tokens

    def spend(self, amount: float) -> None:
        """Take tokens that are there."""
        self._tokens -= amount

    def wait_s(self, amount: float) -> float:
        """How long until so many are there; 0 if they are."""
        return max(0.0, (amount - self.tokens) / self._rate.per_second)


class Turns:
    """The connections of one container that wait for a token: each in its turn, by one timer for all of them."""

    def __init__(self, bucket: Bucket, call_later: Callable[[float, Callable[[], None]], object]) -> None:
        self.bucket, self._call_later = bucket, call_later
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()
        self._timed = False

    @property
    def free(self) -> bool:
        """Whether nobody waits."""
        return not self._waiting

    def wait(self, price: float, go_on: Callable[[], None]) -> None:
        """Call this when so much can be paid, after those who came before."""
        self._waiting.append((price, go_on))
        if not self._timed:
            self._set_timer()

    def _set_timer(self) -> None:
        self._timed = True
        self._call_later(max(LEAST_WAIT_S, self.bucket.wait_s(self._waiting[0][0])), self._serve)

    def _serve(self) -> None:
        self._timed = False
        for _ in range(len(self._waiting)):
            price, go_on = self._waiting[0]
            if self.bucket.tokens < price:
                break
            self._waiting.popleft()
            go_on()
        if self._waiting and not self._timed:
            self._set_timer()


class Throttle:
    """One connection of a container: lets its bytes through as they are paid for; turns: where it waits if not.

    waits: the price of what waits to be paid, so that the connection is not to be read; 0 if nothing does. excess:
    whether it is to be closed, which `refuse` is told of.
    """

    def __init__(self, turns: Turns, held: Held, refuse: Callable[[str], None]) -> None:
        self.turns, self._refuse, self._streams, self._kept = turns, refuse, Streams(held), b""
        self._frames, self._answers = Frames(self._streams), Answers(self._streams)
        self.waits, self.excess = 0.0, False

    def passed(self, data: bytes) -> bytes:
        """What can go on of what was kept and of this; the rest is kept."""
        data = self._kept + data if self._kept else data
        upto, cost = self._frames.paid(data, 0, self.turns.bucket.tokens)
        self.turns.bucket.spend(cost)
        self._kept, self.waits = data[upto:], self._frames.unpaid
        if (excess := self._streams.excess) and not self.excess:
            self.excess = True
            self._refuse(excess)
        return b"" if self.excess else data[:upto]

    def answered(self, data: bytes) -> None:
        """What the service has sent; all of it goes on."""
        self._answers.read(data)

    def close(self) -> None:
        """The connection is gone; idempotent."""
        self._streams.close()
