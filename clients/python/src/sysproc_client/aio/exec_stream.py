"""One call of Exec, for asyncio, and its next message, which somebody may wait for only a while.

When the time is up the message stays with the stream, for who reads next. What is said and read on it is
`sysproc_client.aio.process`.
"""

import asyncio
from collections.abc import Callable

import grpc

from nightos.sysproc.v1.process_service_pb2 import ExecRequest, ExecResponse
from sysproc_client._core.deadline import Deadline
from sysproc_client.aio.channels import Place
from sysproc_client.aio.finished import result_of

Call = grpc.aio.StreamStreamCall[ExecRequest, ExecResponse]


class ExecStream:
    """One call of Exec, the room that it takes, and the task that sends on it. over: told when the call has ended."""

    sender: "asyncio.Task[None]"

    def __init__(self, place: Place, over: Callable[[], None]) -> None:
        self.place = place
        self.call: Call = place.processes.Exec()
        self.call.add_done_callback(lambda _: over())
        self._reading: asyncio.Future[object] | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the call has not ended."""
        return not self.call.done()

    async def has_next(self, deadline: Deadline) -> bool:
        """Wait until there is something to take; False if that takes longer."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(self.call.read())
        await asyncio.wait({self._reading}, timeout=deadline.left)
        return self._reading.done()

    def next(self) -> ExecResponse | None:
        """What has come; None at the end of the stream. Raises grpc.RpcError, Unavailable (the client was closed)."""
        reading, self._reading = self._reading, None
        assert reading is not None, "has_next says whether there is one"
        response = result_of(reading)
        return response if isinstance(response, ExecResponse) else None

    async def close(self) -> None:
        """End it, and wait until nothing is sent or read any more; what was not taken is lost with it."""
        self.call.cancel()
        self.sender.cancel()
        self.place.leave()
        await asyncio.wait({self.sender})
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})
            if not self._reading.cancelled():
                self._reading.exception()  # looked at: nobody else does
