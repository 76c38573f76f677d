"""A process that is to end and may not do so by itself: signals one after the other, then it is given up.

A thread that only sends and waits: what comes back is read by whoever reads `sysproc_client.process`. The signals
are in `sysproc_client._core.killing`.
"""

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sysproc_client._core.killing import AWAY_S, PAUSE_S, not_ended

if TYPE_CHECKING:
    from sysproc_client.process import Process


class Ending(threading.Thread):
    """A process that is to end and may not do so by itself: signals one after the other, then it is given up."""

    def __init__(self, process: "Process", signals: Sequence[int], after: float) -> None:
        super().__init__(name=f"ending of {process.exec_id}", daemon=True)
        self._process, self._signals, self._after = process, signals, after
        self._stopped = threading.Event()
        #: The first signal was sent, because the process was still there then.
        self.begun = False

    def stop(self) -> None:
        """Do not begin. What was begun ends with the process."""
        self._stopped.set()

    def run(self) -> None:
        """See threading."""
        if self._stopped.wait(self._after) or self._process.ended is not None:
            return
        self.begun = True
        for number in self._signals:
            self._process.signal(number)
            if self._process.ended_within(PAUSE_S):
                return
        if not (self._process.away and self._process.ended_within(AWAY_S)):
            self._process.give_up(not_ended(self._process.exec_id))
