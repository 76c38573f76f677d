"""How much one container may ask of the service: a bucket of tokens that all its connections share.

    a call costs a token; so many come back each second, up to the burst ──▶ without one its bytes wait in the relay,
    and the connection is not read: the client's writes block, and nobody else pays for it

The bytes of calls that are under way cost next to nothing, so that streams flow. What frames cost is in
`sysproc.server.frames`; connections are carried by `sysproc.server.relay`. Large messages are refused by grpcio when
it sees their length, before it has read them.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from sysproc.server.frames import CALL, HEADER_BYTES, Frames


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
        self._waiting: deque[Callable[[], None]] = deque()
        self._timed = False

    def wait(self, go_on: Callable[[], None]) -> None:
        """Call this when there is a token again, after those who came before."""
        self._waiting.append(go_on)
        if not self._timed:
            self._timed = True
            self._call_later(self.bucket.wait_s(CALL), self._serve)

    def _serve(self) -> None:
        self._timed = False
        for _ in range(len(self._waiting)):
            if self.bucket.tokens < CALL:
                break
            self._waiting.popleft()()
        if self._waiting and not self._timed:
            self._timed = True
            self._call_later(self.bucket.wait_s(CALL), self._serve)


class Throttle:
    """One connection of a container: lets its bytes through as they are paid for; turns: where it waits if not."""

    def __init__(self, turns: Turns) -> None:
        self.turns, self._frames, self._kept = turns, Frames(), b""

    def passed(self, data: bytes) -> bytes:
        """What can go on of what was kept and of this; the rest is kept."""
        data = self._kept + data if self._kept else data
        upto, cost = self._frames.paid(data, 0, self.turns.bucket.tokens)
        self.turns.bucket.spend(cost)
        self._kept = data[upto:]
        return data[:upto]

    @property
    def waits(self) -> bool:
        """Whether a frame waits for a token, so that the connection is not to be read."""
        return len(self._kept) >= HEADER_BYTES
