"""A process in a container, for asyncio, carried over one stream, or over several when connections are lost.

The asynchronous shell around `sysproc_client._core.exec_machine`, drawn in `sysproc_client.process`, which is the same
with threads. Here a task of each stream sends what the machine says; whoever needs something from the service reads,
one at a time. Who is cancelled while reading lets go of the stream: gRPC ends it, and what was not taken comes again.

How a process is ended that does not end by itself is in `sysproc_client.aio.ending`, what a stream is in
`sysproc_client.aio.exec_stream`.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING

import grpc

from nightos.sysproc.v1.process_service_pb2 import ExecRequest
from sysproc_client._core import unread
from sysproc_client._core.deadline import NEVER, Deadline
from sysproc_client._core.errors import SysprocError, from_rpc_error
from sysproc_client._core.exec_machine import Chunk, Ended, ExecMachine, State
from sysproc_client._core.killing import KILLS, too_long
from sysproc_client._core.results import Collected, Result
from sysproc_client._core.retry import fate_of
from sysproc_client.aio.connection import Connection
from sysproc_client.aio.ending import AsyncEnding
from sysproc_client.aio.exec_stream import ExecStream
from sysproc_client.aio.sending import send
from sysproc_client.aio.to_end import to_end

if TYPE_CHECKING:
    from typing_extensions import Self


class Changes:
    """Wakes all who wait for something that may have changed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        """Something has changed: all look again."""
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self) -> None:
        """Until the next time."""
        await self._event.wait()

    async def within(self, seconds: float | None) -> None:
        """Until the next time, or for so long."""
        if seconds is None:
            return await self.wait()
        waiting = asyncio.ensure_future(self.wait())
        try:
            await asyncio.wait({waiting}, timeout=seconds)
        finally:
            waiting.cancel()


class AsyncStdin:
    """The input of a process; write blocks while more than 1 MiB has not been accepted.

    Output that comes meanwhile is kept, up to 16 MiB: whoever writes more than a process takes has to read too.
    """

    def __init__(self, process: "AsyncProcess") -> None:
        self._process = process

    async def write(self, data: bytes) -> None:
        """Send input. Raises ValueError (closed), BrokenPipeError (the process has ended), SysprocError."""
        await self._process._write(data)

    async def close(self) -> None:
        """No more input; on a terminal, the end-of-file character."""
        self._process._do(lambda machine: machine.close_stdin())


class AsyncOutput:
    """One of its two streams of output: iterate for its bytes, until the process has ended. Raises SysprocError.

    What the other one says meanwhile is kept, up to 16 MiB; then it has to be read, too, for this one to go on: by
    another task, or by iterating the process itself.
    """

    def __init__(self, process: "AsyncProcess", stream: unread.Stream) -> None:
        self._process, self._stream = process, stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async with aclosing(self._process._chunks(self._stream)) as chunks:
            async for chunk in chunks:
                yield chunk.data


class AsyncProcess:
    """A process: iterate for its output, or `stdout` and `stderr`; write to `stdin`, `wait` for its end.

    It starts when something is read. As a context manager it kills the process if it is left before the end.
    """

    def __init__(self, connection: Connection, start: ExecRequest.Start) -> None:
        self._connection, self._attempts = connection, connection.attempts()
        self._machine, self._changed = ExecMachine(start), Changes()
        self._stream: ExecStream | None = None
        self._reading = False
        self._failure: SysprocError | None = None
        self._unread = unread.Unread()
        self._iterating = 0
        self._endings: list[AsyncEnding] = []
        #: Its input.
        self.stdin = AsyncStdin(self)
        #: Its output; with a terminal, all of it.
        self.stdout = AsyncOutput(self, "stdout")
        #: Its output of errors.
        self.stderr = AsyncOutput(self, "stderr")

    async def __aenter__(self) -> "Self":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        try:
            await to_end(self._finish())
        except SysprocError:
            if kind is None or not issubclass(kind, asyncio.CancelledError):
                raise

    async def _finish(self) -> None:
        """Kill it, unless it has ended or was never begun; afterwards it has no stream and no task."""
        try:
            if not self._over and self._machine.state is not State.NEW:
                await self.end_by(KILLS)
                await self.wait()
        finally:
            await self._hang_up()
            for ending in self._endings:
                await ending._leave()

    @property
    def exec_id(self) -> str:
        """By which the process is found again."""
        return self._machine.start.exec_id

    @property
    def ended(self) -> Ended | None:
        """How it ended; None while it runs, as far as was read."""
        return self._machine.ended

    @property
    def away(self) -> bool:
        """Whether nothing reaches the process now: it was not started yet, or the connection is lost."""
        return self._machine.state is not State.RUNNING or self._attempts.since is not None

    # -- from the caller

    def _do(self, change: Callable[[ExecMachine], None]) -> None:
        change(self._machine)
        self._changed.tell()

    async def _write(self, data: bytes) -> None:
        await self._read_until(lambda: self._failure is None and not self._machine.input_full, ahead=True)
        if self._machine.ended is not None:
            raise BrokenPipeError("the process has ended")
        self._do(lambda machine: machine.write(data))

    async def resize(self, rows: int, columns: int) -> None:
        """Tell its terminal another size; without one nothing happens. Raises InvalidArgument.

        It does not wait: what the service has against it is raised to who reads.
        """
        self._do(lambda machine: machine.resize(rows, columns))

    async def signal(self, number: int) -> None:
        """Send it a signal, 1 to 64; nothing happens after its end. Raises InvalidArgument.

        It does not wait: what the service has against it is raised to who reads.
        """
        self._do(lambda machine: machine.signal(number))

    async def end_by(self, signals: Sequence[int], after: float = 0) -> AsyncEnding:
        """Send these signals one after the other until it has ended, then give it up. Somebody reads meanwhile."""
        ending = AsyncEnding(self, signals, after)
        self._endings.append(ending)
        return ending

    async def give_up(self, why: SysprocError) -> None:
        """Whoever reads or writes gets this error from now on, whatever becomes of the process."""
        self._failure = self._failure or why
        self._changed.tell()
        await self._hang_up()

    async def ended_within(self, seconds: float) -> bool:
        """Wait, without reading, until it has ended or was given up; False if that takes longer."""
        waiting = asyncio.ensure_future(self._until_over())
        try:
            await asyncio.wait({waiting}, timeout=seconds)
        finally:
            waiting.cancel()
        return self._over

    async def _until_over(self) -> None:
        while not self._over:
            await self._changed.wait()

    @property
    def _over(self) -> bool:
        return self._machine.ended is not None or self._failure is not None

    # -- reading

    def __aiter__(self) -> AsyncIterator[Chunk]:
        """Its output as it comes, until it has ended. Raises SysprocError."""
        return self._chunks(None)

    async def _chunks(self, stream: unread.Stream | None, deadline: Deadline = NEVER) -> AsyncGenerator[Chunk, None]:
        """Of one stream or of both. Who leaves last lets go of the connection, unless only the time was up."""
        self._iterating += 1
        try:
            while True:
                await self._read_until(lambda: self._unread.has(stream), ahead=stream is not None, deadline=deadline)
                chunk = self._unread.take(stream)
                self._changed.tell()
                if chunk is not None:
                    yield chunk
                elif self._machine.ended is not None:
                    return
                if deadline.passed:
                    raise deadline.still_running()
        finally:
            self._iterating -= 1
            if not self._iterating and (self._over or not deadline.passed):
                await self._hang_up()

    async def _read_until(self, condition: Callable[[], bool], *, ahead: bool, deadline: Deadline = NEVER) -> None:
        """Read, or wait while another task does, until the condition holds or the process has ended.

        ahead: what is read may not be what is wanted; so much of it is kept as may be. Late, too, what has
        come already is read. Raises TimedOut.
        """
        looked = False
        while not condition():
            if self._failure is not None:
                raise self._failure
            if self._machine.ended is not None:
                return
            if looked and deadline.passed:
                raise deadline.still_running()
            looked = True
            if self._reading or (ahead and self._unread.full):
                await self._changed.within(deadline.left)
            else:
                await self._read(deadline)

    async def _read(self, deadline: Deadline) -> None:
        """One message, if it comes in time; an error is everybody's."""
        self._reading = True
        try:
            await self._read_from(self._stream or self._open(), deadline)
        except SysprocError as failure:
            await self.give_up(failure)
        finally:
            self._reading = False
            self._changed.tell()

    async def _read_from(self, stream: ExecStream, deadline: Deadline) -> None:
        try:
            has_come = await stream.has_next(deadline)
        except asyncio.CancelledError:
            await self._hang_up()
            raise
        if not has_come or self._stream is not stream:
            return  # it is late; or another task has hung up, and that is all it says
        try:
            response = stream.next()
        except grpc.RpcError as error:
            await self._lost(error, deadline)
            return
        if response is None:
            raise SysprocError("The stream ended before the process did.", reason="STREAM_ENDED")
        self._unread.add(self._machine.feed(response))
        self._attempts.progressed()

    async def _lost(self, error: grpc.RpcError, deadline: Deadline) -> None:
        """Get ready for another stream, or raise."""
        failure, fate = from_rpc_error(error, self._connection.endpoint), fate_of(error)
        await self._hang_up()
        news = self._machine.lost(fate, failure)
        pause = 0 if news else await self._connection.pause(self._attempts, fate, failure)
        await self.ended_within(deadline.no_later(pause))

    # -- the stream

    def _open(self) -> ExecStream:
        self._stream = stream = ExecStream(self._connection.channels.place(), self._changed.tell)
        stream.sender = asyncio.ensure_future(self._send(stream, self._machine.opening()))
        return stream

    async def _hang_up(self) -> None:
        """Let go of the stream, if there is one; the process lives on."""
        stream, self._stream = self._stream, None
        if stream is not None:
            self._machine.lost()
            self._changed.tell()
            await stream.close()

    async def _send(self, stream: ExecStream, opening: ExecRequest) -> None:
        """What is sent on one stream; ends with it, or when it is not the current one any more."""
        try:
            messages: Sequence[ExecRequest] | None = [opening]
            while messages is not None:
                for message in messages:
                    if not await send(stream.call, message):
                        return
                messages = await self._next_messages(stream)
        except grpc.RpcError:
            return  # there was no connection: whoever reads is told why

    async def _next_messages(self, stream: ExecStream) -> Sequence[ExecRequest] | None:
        while self._stream is stream and stream.is_alive and not self._over:
            if messages := list(self._machine.to_send()):
                return messages
            await self._changed.wait()
        return None

    # -- to the end

    async def wait(self, timeout: float | None = None) -> Ended:
        """Read (and drop) output until the process has ended.

        After `timeout` seconds TimedOut is raised (WAIT_TIMEOUT): the process goes on running, and can be waited for
        again. What it is told then reaches it at once; the connection is kept, until its block is left or the client
        is closed. 0: only look.

        Raises SysprocError (as `exec` says), InvalidArgument (no such time).
        """
        async with aclosing(self._chunks(None, Deadline(timeout))) as chunks:
            async for _ in chunks:
                pass
        ended = self._machine.ended
        if ended is None:
            raise SysprocError("The process has not ended.", reason="STREAM_ENDED")
        return ended

    async def collect(self, timeout: float | None) -> Result:
        """All its output. After `timeout` seconds it is killed, and TimedOut is raised; however it is left, it is over.

        Raises SysprocError.
        """
        async with self:
            return await (self._collect() if timeout is None else self._collect_within(timeout))

    async def _collect_within(self, timeout: float) -> Result:
        killing = await self.end_by(KILLS, after=timeout)
        try:
            result = await self._collect()
        except SysprocError as failure:
            if killing.begun:
                raise too_long(timeout) from failure
            raise
        finally:
            if not killing.begun:  # else it ends with the process, and for that somebody has to read
                await killing.stop()
        if killing.begun:
            raise too_long(timeout)
        return result

    async def _collect(self) -> Result:
        output = Collected()
        async with aclosing(self._chunks(None)) as chunks:
            async for chunk in chunks:
                output.add(chunk)
        return output.result(await self.wait())
