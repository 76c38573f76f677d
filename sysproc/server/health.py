"""grpc.health.v1: whether each service answers, and that it soon will not any more.

grpcio's own servicer for asyncio forgets watchers when one of several leaves, so this is ours.
When the states change is decided in `sysproc.server.daemon`.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable

from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from sysproc.errors import NotFound
from sysproc.server.call import Call


class Health:
    """The servicer; all services are up or down together, `` is the whole."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = frozenset({"", *services})
        self._serving = False
        self._changed = asyncio.Condition()

    async def set(self, serving: bool) -> None:
        """From now on all services answer, or do not."""
        async with self._changed:
            self._serving = serving
            self._changed.notify_all()

    async def Check(self, request: HealthCheckRequest, _: Call) -> HealthCheckResponse:
        """The state of one service; NOT_FOUND for one that there is not."""
        if request.service not in self._services:
            raise NotFound(
                f"There is no service {request.service[:100]!r}.",
                resolution="Leave the name empty to ask for the whole.",
                reason="SERVICE_NOT_FOUND",
            )
        return status(self._serving)

    async def Watch(self, request: HealthCheckRequest, _: Call) -> AsyncIterator[HealthCheckResponse]:
        """The state of one service, and each change of it."""
        if request.service not in self._services:
            yield HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
            await asyncio.Event().wait()
        last: bool | None = None
        while True:
            async with self._changed:
                while self._serving == last:
                    await self._changed.wait()
                last = self._serving
            yield status(last)


def status(serving: bool) -> HealthCheckResponse:
    """The message for a state."""
    return HealthCheckResponse(status=HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING)
