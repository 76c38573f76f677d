"""How many lines of log one container may cause: so many a second; of the rest only the number is kept.

Everything is counted all the same (`sysproc.server.interceptor`), and what the host's callers do is logged as a whole.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from sysproc.server.throttle import Bucket, Rate

LINES = Rate(per_second=10, burst=100)
# Of more containers that call at the same time the one that was silent for longest begins anew.
MOST_CONTAINERS = 4096


@dataclass
class Account:
    """What one container has left, and how many of its lines were not written since the last."""

    bucket: Bucket
    unwritten: int = 0


class LogBudget:
    """Used from one event loop. clock: in seconds."""

    def __init__(self, lines: Rate = LINES, clock: Callable[[], float] = time.monotonic) -> None:
        self._lines, self._clock = lines, clock
        self._accounts: OrderedDict[int, Account] = OrderedDict()

    def unwritten(self, container_id: int | None) -> int | None:
        """Ask for one more line: how many were left out before it, or None if it is to be left out, too."""
        if container_id is None:
            return 0
        account = self._accounts.setdefault(container_id, Account(Bucket(self._lines, self._clock)))
        self._accounts.move_to_end(container_id)
        if len(self._accounts) > MOST_CONTAINERS:
            self._accounts.popitem(last=False)
        if account.bucket.tokens < 1:
            account.unwritten += 1
            return None
        account.bucket.spend(1)
        before, account.unwritten = account.unwritten, 0
        return before
