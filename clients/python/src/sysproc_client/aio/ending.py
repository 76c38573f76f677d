"""A process that is to end and may not do so by itself: signals one after the other, then it is given up.

A task that only sends and waits: what comes back is read by whoever reads `sysproc_client.aio.process`. The signals
are in `sysproc_client._core.killing`.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sysproc_client._core.killing import AWAY_S, PAUSE_S, not_ended

if TYPE_CHECKING:
    from sysproc_client.aio.process import AsyncProcess


class AsyncEnding:
    """A process that is to end and may not do so by itself: signals one after the other, then it is given up."""

    def __init__(self, process: "AsyncProcess", signals: Sequence[int], after: float) -> None:
        self._process, self._signals, self._after = process, signals, after
        self._task = asyncio.ensure_future(self._run())
        #: The first signal was sent, because the process was still there then.
        self.begun = False

    async def stop(self) -> None:
        """Do not begin. What was begun ends with the process."""
        if not self.begun:
            self._task.cancel()
        await asyncio.wait({self._task})

    async def _leave(self) -> None:
        """Nobody reads any more: whatever it waits for will not come."""
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        if await self._process.ended_within(self._after) or self._process.ended is not None:
            return
        self.begun = True
        for number in self._signals:
            await self._process.signal(number)
            if await self._process.ended_within(PAUSE_S):
                return
        if not (self._process.away and await self._process.ended_within(AWAY_S)):
            await self._process.give_up(not_ended(self._process.exec_id))
