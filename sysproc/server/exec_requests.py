"""What a client says on an Exec stream after the first message, and how it is done.

    requests ──▶ obey ──▶ signals, sizes, what was received: at once
                  └─────▶ Pending ──▶ input and its end, in their order, as fast as the process reads

So a process that does not read its input can be killed all the same. What is wrong ends the events of the stream;
what is carried out is in `sysproc.exec_handle`, the events are sent by `sysproc.server.process_service`.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from nightos.sysproc.v1 import process_service_pb2 as pb
from sysproc.errors import SysprocError
from sysproc.exec_handle import ExecHandle
from sysproc.server.convert import processes as convert

# So much input may wait beside what the spool takes; then the stream is not read any more, whatever comes next.
PENDING_BYTES = 1 << 20


class Pending:
    """Input that could not be written yet; `put` waits when it is too much."""

    def __init__(self) -> None:
        self._waiting: deque[pb.ExecRequest] = deque()
        self._bytes, self._changed, self._complete = 0, asyncio.Event(), False

    async def put(self, request: pb.ExecRequest) -> None:
        """One more; comes back when another may come."""
        self._waiting.append(request)
        self._bytes += len(request.stdin.data)
        self._changed.set()
        while self._bytes > PENDING_BYTES:
            await self._next_change()

    def complete(self) -> None:
        """There will be no more."""
        self._complete = True
        self._changed.set()

    async def get(self) -> pb.ExecRequest | None:
        """The next one; None if there will be none."""
        while not self._waiting:
            if self._complete:
                return None
            await self._next_change()
        return self._waiting[0]

    def done(self) -> None:
        """The one that `get` gave is written."""
        self._bytes -= len(self._waiting.popleft().stdin.data)
        self._changed.set()

    async def _next_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


async def obey(handle: ExecHandle, requests: AsyncIterator[pb.ExecRequest]) -> None:
    """Do what the client says until it says no more; what is wrong ends the stream."""
    pending = Pending()
    writing = asyncio.create_task(write_input(handle, pending))
    try:
        async for request in requests:
            if request.WhichOneof("request") in ("stdin", "close_stdin"):
                await pending.put(request)
            else:
                await obey_at_once(handle, request)
        pending.complete()
        await writing
    except SysprocError as error:
        handle.fail(error)
    finally:
        writing.cancel()
        await asyncio.wait({writing})


async def write_input(handle: ExecHandle, pending: Pending) -> None:
    """Write what is pending, in its order."""
    try:
        while (request := await pending.get()) is not None:
            if request.WhichOneof("request") == "stdin":
                await handle.write_stdin(request.stdin.offset, request.stdin.data)
            else:
                await handle.close_stdin()
            pending.done()
    except SysprocError as error:
        handle.fail(error)


async def obey_at_once(handle: ExecHandle, request: pb.ExecRequest) -> None:
    """One message that has nothing to do with input. Raises SysprocError."""
    match request.WhichOneof("request"):
        case "resize":
            window = convert.window_from_proto(request.resize)
            handle.resize(window.rows, window.columns)
        case "signal":
            await handle.signal(convert.signal_from_proto(request.signal))
        case "received":
            handle.received(request.received.stdout_offset, request.received.stderr_offset)
        case _:
            pass  # a message of a later version that this one does not know
