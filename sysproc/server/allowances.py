"""What each container may have of the relay, by all its ways in together.

    its own socket ────────────────────────────────┐
    its certificates, on each TCP port of the host ┴▶ one Allowance ──▶ connections at a time, new ones by time,
                                                                        calls by time, bytes held of messages

It is kept until the container is gone, so that who connects anew, or stops and starts, does not begin anew. What is
counted of a connection is in `sysproc.server.throttle`; who asks is `sysproc.server.relay` and `sysproc.server.remote`.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from sysproc.server.streams import Held
from sysproc.server.throttle import Bucket, Rate, Throttle, Turns


@dataclass(frozen=True)
class Bounds:
    """What one container may have: connections at a time; new ones, and calls, by time; bytes held of messages."""

    connections: int
    calls: Rate
    accepts: Rate
    held_bytes: int


class Allowance:
    """What is left to one container."""

    def __init__(self, bounds: Bounds) -> None:
        loop = asyncio.get_running_loop()
        self._most = bounds.connections
        self._connections: set[asyncio.Future[None]] = set()
        self._turns = Turns(Bucket(bounds.calls, loop.time), loop.call_later)
        self._accepts = Bucket(bounds.accepts, loop.time)
        self._held = Held(bounds.held_bytes)

    def accept(self) -> float:
        """One more is about to connect. How long it has to wait before it is asked for again; 0: it may."""
        if (wait_s := self._accepts.wait_s(1)) > 0:
            return wait_s
        self._accepts.spend(1)
        return 0

    async def pay(self, calls: int) -> None:
        """Wait until it has so many calls left, one after the other in turn with its connections, and take them."""
        for _ in range(calls):
            await self._pay_one()

    async def _pay_one(self) -> None:
        if self._turns.free and self._turns.bucket.tokens >= 1:
            self._turns.bucket.spend(1)
            return
        paid: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def take() -> None:
            if not paid.done():
                self._turns.bucket.spend(1)
                paid.set_result(None)

        self._turns.wait(1, take)
        await paid

    def check(self) -> None:
        """Raise ConnectionRefusedError if there can be no more connections now."""
        if len(self._connections) >= self._most:
            raise ConnectionRefusedError(f"more than {self._most} connections of one container")

    def count(self, connection: "asyncio.Future[None]") -> None:
        """One more, until this is done."""
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    def throttle(self, refuse: Callable[[str], None]) -> Throttle:
        """For one more connection. refuse: is told why one is to be closed."""
        return Throttle(self._turns, self._held, refuse)


class Allowances:
    """Those of all containers; None stands for who has a container's certificate but no container."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._of: dict[int | None, Allowance] = {}

    def of(self, container_id: int | None) -> Allowance:
        """That of one container; made when it is first asked for."""
        if container_id not in self._of:
            self._of[container_id] = Allowance(self._bounds)
        return self._of[container_id]

    def forget(self, container_id: int) -> None:
        """The container is gone; idempotent."""
        self._of.pop(container_id, None)
