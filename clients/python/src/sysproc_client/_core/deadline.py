"""Until when somebody waits, and the error for who has waited so long for the end of a process.

Who waits is in `sysproc_client.process` and `sysproc_client.aio.process`.
"""

import time

from sysproc_client._core.errors import TimedOut
from sysproc_client._core.values import as_duration

# Threads wait no longer than this at a time.
_AT_MOST_S = 86400.0


class Deadline:
    """So many seconds from now; None: whenever. Raises InvalidArgument (no such time)."""

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None:
            as_duration(seconds)
        self._seconds = seconds
        self._at = None if seconds is None else time.monotonic() + seconds

    @property
    def left(self) -> float | None:
        """The seconds until then, 0 to a day; None if there is no such time."""
        return None if self._at is None else min(max(self._at - time.monotonic(), 0), _AT_MOST_S)

    @property
    def passed(self) -> bool:
        """Whether it is over."""
        return self.left == 0

    def no_later(self, seconds: float) -> float:
        """So long, or until then."""
        return seconds if self.left is None else min(seconds, self.left)

    def still_running(self) -> TimedOut:
        """The error for a process that has not ended until then."""
        return TimedOut(
            f"The process has not ended within {self._seconds:g} s.",
            reason="WAIT_TIMEOUT",
            resolution="It goes on running: wait again, or end it by signal().",
        )


NEVER = Deadline(None)
