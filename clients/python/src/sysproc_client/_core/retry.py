"""What is tried again, how often, and after which pause: one rule for unary calls and streams, without I/O or clock.

    what became of the request              how that is seen                          it is tried again
    REFUSED  there was no room for it       HTTP/2's REFUSED_STREAM                   always
    UNSENT   no connection came about       "failed to connect"                       only if one was lost before
    UNKNOWN  its answer was lost            the connection ended, the service stops   if repeating it is safe
    FINAL    it was answered                everything else                           never

Repeating is safe where the API says idempotent: by itself, by `request_id`, by `exec_id`. What an error says to people
is in `sysproc_client._core.errors`; who waits is in `sysproc_client.connection` and `sysproc_client.aio.connection`.
"""

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from sysproc_client._core.errors import UNREACHABLE, SysprocError, answer_lost, error_info

if TYPE_CHECKING:
    import grpc

# How long a service that has died may take to come back before the caller is told.
PATIENCE_S = 30.0
# Making the template of a large image may take a minute.
TIMEOUT_S = 120.0
# The pause doubles from the first to the longest.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0
# After so long a person wants to know what is waited for.
WORTH_SAYING_S = 2.0

_REFUSED = "RST_STREAM with error code 7"
_UNSENT = "failed to connect"
_STOPPING = "STOPPING"


class Fate(Enum):
    """What became of a request whose call has failed."""

    REFUSED = "refused"
    UNSENT = "unsent"
    UNKNOWN = "unknown"
    FINAL = "final"


def fate_of(error: "grpc.RpcError") -> Fate:
    """See the table above. gRPC tells these apart in words only."""
    if error.code().name != "UNAVAILABLE":
        return Fate.FINAL
    if (info := error_info(error)) is not None:
        return Fate.UNKNOWN if info.reason == _STOPPING else Fate.FINAL
    words = error.details() or ""
    if _REFUSED in words:
        return Fate.REFUSED
    return Fate.UNSENT if _UNSENT in words else Fate.UNKNOWN


@dataclass
class Attempts:
    """One request, sent until it is answered or given up. Times are seconds of any one clock."""

    patience_s: float = PATIENCE_S
    repeatable: bool = True
    # Since when nothing has gone well, and whether what was sent may have been carried out.
    since: float | None = None
    lost: bool = False
    _failures: int = 0
    _said: bool = False

    def pause_after(self, fate: Fate, now: float, deadline: float | None = None) -> float | None:
        """How long to wait before the next attempt; None: there is none, or it would be too late."""
        pause = self._pause_after(fate, now)
        return None if pause is None or (deadline is not None and now + pause >= deadline) else pause

    def _pause_after(self, fate: Fate, now: float) -> float | None:
        self.since = now if self.since is None else self.since
        self.lost = self.lost or fate is Fate.UNKNOWN
        if fate is Fate.FINAL or (fate is Fate.UNSENT and not self.lost):
            return None
        if self.lost and not self.repeatable:
            return None
        if now - self.since >= (self.patience_s if self.lost else PATIENCE_S):
            return None
        self._failures += 1
        return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._failures - 1, 10))

    def worth_saying(self, now: float) -> bool:
        """Whether it is time to say that the service is away; once for each absence."""
        if self._said or not self.lost or self.since is None or now - self.since < WORTH_SAYING_S:
            return False
        self._said = True
        return True

    def may_be_refused(self, fate: Fate) -> bool:
        """Whether a service that was lost may be back and not let us in: over TLS that looks like being away."""
        return fate is Fate.UNSENT and self.lost

    def final(self, fate: Fate, failure: SysprocError, endpoint: str, now: float) -> SysprocError | None:
        """What the caller is told at last; None: why nothing can be sent, which has to be found out."""
        if failure.reason != UNREACHABLE:
            return failure
        if fate is not Fate.UNKNOWN and not self.lost:
            return None
        return answer_lost(endpoint, 0 if self.since is None else now - self.since)

    def progressed(self) -> None:
        """The service has answered: what fails from now on is another story."""
        self.since, self.lost, self._failures, self._said = None, False, 0, False
