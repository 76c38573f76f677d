"""What one container starts at a time: processes and containers, whichever of its connections asks.

    CreateContainer, StartContainer, Exec (its start) ──▶ a few of each container at once ──▶ the verb
                                                              others of it wait, in their order

A start costs the machine a hundred times what another call does, so that a bucket of calls (`sysproc.server.throttle`)
does not hold it. The host has no bound. What may be under way of calls is in `sysproc.server.calls_under_way`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary


class Starts:
    """Used from one event loop."""

    def __init__(self, most_per_container: int) -> None:
        self._most = most_per_container
        self._turns: WeakValueDictionary[int, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, container_id: int | None) -> AsyncIterator[None]:
        """While this container, the caller, starts something; waits until it may. None: the host, which always may."""
        if container_id is None:
            yield
            return
        turns = self._turns.get(container_id)
        if turns is None:
            turns = self._turns[container_id] = asyncio.Semaphore(self._most)
        async with turns:
            yield
