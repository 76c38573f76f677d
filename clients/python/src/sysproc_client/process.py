"""A process in a container, carried over one stream, or over several when connections are lost.

The synchronous shell around `sysproc_client._core.exec_machine`: it sends what the machine says and hands out what
comes. gRPC's own thread takes the messages to send; whoever needs something from the service reads, one thread at a
time, and what it reads for others waits for them:

    iterate ──┐ nothing unread ┌─▶ one reads the next message ─▶ unread output, accepted input, the end ─▶ all look
    write   ──┘ or no room     └─▶ the others wait for that

How a process is ended that does not end by itself is in `sysproc_client.ending`.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc

from nightos.sysproc.v1.process_service_pb2 import ExecRequest
from sysproc_client._core.errors import SysprocError, TimedOut, from_rpc_error
from sysproc_client._core.exec_machine import Chunk, Ended, ExecMachine, State
from sysproc_client._core.retry import fate_of
from sysproc_client.channels import Place
from sysproc_client.connection import Connection
from sysproc_client.ending import KILLS, SIGKILL, Ending

# A writer that reads for others reads so much output ahead; then it waits until somebody takes it.
UNREAD_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Result:
    """What a command has left: exit_code, or the signal that ended it, and its output."""

    exit_code: int | None
    signal: int | None
    stdout: bytes
    stderr: bytes
    failure: str = ""


@dataclass
class Stream:
    """One call of Exec and the room that it takes."""

    place: Place
    call: Any  # an iterator of ExecResponse with grpc.Call's cancel()


class Stdin:
    """The input of a process; write blocks while more than 1 MiB has not been accepted.

    Output that comes meanwhile is kept, up to 16 MiB: whoever writes more than a process takes has to read too.
    """

    def __init__(self, process: "Process") -> None:
        self._process = process

    def write(self, data: bytes) -> None:
        """Send input. Raises ValueError after close, BrokenPipeError if the process has ended, SysprocError."""
        self._process._write(data)

    def close(self) -> None:
        """No more input; on a terminal, the end-of-file character."""
        self._process._do(lambda machine: machine.close_stdin())


class Process:
    """A running process: iterate for its output, write to `stdin`, `wait` for its end.

    As a context manager it kills the process if it is left before the end.
    """

    def __init__(self, connection: Connection, start: ExecRequest.Start) -> None:
        self._connection, self._attempts = connection, connection.attempts()
        self._machine, self._changed = ExecMachine(start), threading.Condition()
        self._stream: Stream | None = None
        self._reading = False
        self._failure: SysprocError | None = None
        self._unread: deque[Chunk] = deque()
        self.stdin = Stdin(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        if not self._over and self._machine.state is not State.NEW:
            self.signal(SIGKILL)
            self.wait()

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
        with self._changed:
            change(self._machine)
            self._changed.notify_all()

    def _write(self, data: bytes) -> None:
        self._read_until(lambda: self._failure is None and not self._machine.input_full, most_unread=UNREAD_BYTES)
        if self._machine.ended is not None:
            raise BrokenPipeError("the process has ended")
        self._do(lambda machine: machine.write(data))

    def resize(self, rows: int, columns: int) -> None:
        """Tell its terminal another size."""
        self._do(lambda machine: machine.resize(rows, columns))

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._do(lambda machine: machine.signal(number))

    def end_by(self, signals: Sequence[int], after: float = 0) -> Ending:
        """Send these signals one after the other until it has ended, then give it up. Somebody reads meanwhile."""
        ending = Ending(self, signals, after)
        ending.start()
        return ending

    def give_up(self, why: SysprocError) -> None:
        """Whoever reads or writes gets this error from now on, whatever becomes of the process."""
        with self._changed:
            self._failure = self._failure or why
            self._changed.notify_all()
        self._hang_up()

    def ended_within(self, seconds: float) -> bool:
        """Wait, without reading, until it has ended or was given up; False if that takes longer."""
        with self._changed:
            return self._changed.wait_for(lambda: self._over, seconds)

    @property
    def _over(self) -> bool:
        return self._machine.ended is not None or self._failure is not None

    # -- reading

    def __iter__(self) -> Iterator[Chunk]:
        """Its output as it comes, until it has ended. Raises SysprocError."""
        try:
            while True:
                self._read_until(lambda: bool(self._unread))
                with self._changed:
                    chunk = self._unread.popleft() if self._unread else None
                    self._changed.notify_all()
                if chunk is not None:
                    yield chunk
                elif self._machine.ended is not None:
                    return
        finally:
            self._hang_up()

    def _read_until(self, condition: Callable[[], bool], most_unread: int | None = None) -> None:
        """Read, or wait while another thread does, until the condition holds or the process has ended."""
        while True:
            with self._changed:
                if condition():
                    return
                if self._failure is not None:
                    raise self._failure
                if self._machine.ended is not None:
                    return
                if self._reading or (most_unread is not None and self._unread_bytes() >= most_unread):
                    self._changed.wait()
                    continue
                self._reading = True
            self._read()

    def _unread_bytes(self) -> int:
        return sum(len(chunk.data) for chunk in self._unread)

    def _read(self) -> None:
        """One message; an error is everybody's."""
        try:
            self._read_from(self._stream or self._open())
        except SysprocError as failure:
            self.give_up(failure)
        finally:
            with self._changed:
                self._reading = False
                self._changed.notify_all()

    def _read_from(self, stream: Stream) -> None:
        try:
            response = next(stream.call, None)
        except grpc.RpcError as error:
            if self._stream is stream:  # else another thread has hung up, and that is all it says
                self._lost(error)
            return
        with self._changed:
            if self._stream is not stream:
                return
            if response is None:
                raise SysprocError("The stream ended before the process did.", reason="STREAM_ENDED")
            self._unread.extend(self._machine.feed(response))
            self._attempts.progressed()

    def _lost(self, error: grpc.RpcError) -> None:
        """Get ready for another stream, or raise."""
        failure, fate = from_rpc_error(error, self._connection.endpoint), fate_of(error)
        self._hang_up()
        with self._changed:
            news = self._machine.lost(fate, failure)
        self.ended_within(0 if news else self._connection.pause(self._attempts, fate, failure))

    # -- the stream

    def _open(self) -> Stream:
        with self._changed:
            place = self._connection.channels.place()
            # What is to be sent is asked for by another thread, which waits for this lock.
            call = place.processes.Exec(self._requests(place, self._machine.opening()))
            self._stream = Stream(place, call)
            return self._stream

    def _hang_up(self) -> None:
        """Let go of the stream, if there is one; the process lives on."""
        with self._changed:
            stream, self._stream = self._stream, None
            if stream is None:
                return
            self._machine.lost()
            self._changed.notify_all()
        stream.call.cancel()
        stream.place.leave()

    def _requests(self, place: Place, opening: ExecRequest) -> Iterator[ExecRequest]:
        """What is sent on one stream; ends when the stream is not the current one any more."""
        yield opening
        while True:
            with self._changed:
                messages = self._next_messages(place)
            if messages is None:
                return
            yield from messages

    def _next_messages(self, place: Place) -> list[ExecRequest] | None:
        while self._stream is not None and self._stream.place is place and not self._over:
            if messages := list(self._machine.to_send()):
                return messages
            self._changed.wait()
        return None

    # -- to the end

    def wait(self) -> Ended:
        """Read (and drop) output until the process has ended."""
        for _ in self:
            pass
        ended = self._machine.ended
        if ended is None:
            raise SysprocError("The process has not ended.", reason="STREAM_ENDED")
        return ended

    def collect(self, timeout: float | None) -> Result:
        """All its output. After `timeout` seconds it is killed, and TimedOut is raised."""
        if timeout is None:
            return self._collect()
        late = TimedOut(f"The command was killed: it took longer than {timeout} s.", reason="COMMAND_TIMEOUT")
        killing = self.end_by(KILLS, after=timeout)
        try:
            result = self._collect()
        except SysprocError as failure:
            if killing.begun:
                raise late from failure
            raise
        finally:
            killing.stop()
        if killing.begun:
            raise late
        return result

    def _collect(self) -> Result:
        output = {"stdout": bytearray(), "stderr": bytearray()}
        for chunk in self:
            output[chunk.stream] += chunk.data
        ended = self.wait()
        return Result(ended.exit_code, ended.signal, bytes(output["stdout"]), bytes(output["stderr"]), ended.failure)
