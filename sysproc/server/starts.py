"""What one container starts at a time: processes and containers, whichever of its connections asks.

    CreateContainer, StartContainer, Exec (its start) ──▶ a few of each container at once ──▶ paid ──▶ the verb
                                                              others of it wait, in their order

A start takes as much of the daemon as several calls, and what was asked for is known only here: so it waits here until
its price can be taken from the container's calls (`sysproc.server.allowances`). The host has no bound. What may be
under way of calls is in `sysproc.server.calls_under_way`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

# Beside the call itself. Processor time of the daemon: a call 0.6 ms, starting a process 3, a container 11.
PRICE = 4


async def free(_: int, __: int) -> None:
    """Nothing is to be paid."""


class Starts:
    """Used from one event loop. pay: waits until a container can pay so many calls, and takes them."""

    def __init__(self, most_per_container: int, pay: Callable[[int, int], Awaitable[None]] = free) -> None:
        self._most, self._pay = most_per_container, pay
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
            await self._pay(container_id, PRICE)
            yield
