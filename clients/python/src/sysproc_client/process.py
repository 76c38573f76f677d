"""A process in a container, carried over one stream, or over several when connections are lost.

The synchronous shell around `sysproc_client._core.exec_machine`: it sends what the machine says and hands out what
comes. gRPC's own thread takes the messages to send; whoever needs something from the service reads, one thread at a
time, and what it reads for others waits for them:

    iterate ──┐ nothing unread ┌─▶ one reads the next message ─▶ unread output, accepted input, the end ─▶ all look
    write   ──┘ or no room     └─▶ the others wait for that

How a process is ended that does not end by itself is in `sysproc_client.ending`, what a stream is in
`sysproc_client.exec_stream`.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import grpc

from nightos.sysproc.v1.process_service_pb2 import ExecRequest
from sysproc_client._core import unread
from sysproc_client._core.deadline import NEVER, Deadline
from sysproc_client._core.errors import SysprocError
from sysproc_client._core.exec_machine import Chunk, Ended, ExecMachine, State
from sysproc_client._core.killing import KILLS, SIGKILL, too_long
from sysproc_client._core.results import Collected, Result
from sysproc_client._core.retry import fate_of
from sysproc_client.channels import Place
from sysproc_client.connection import Connection
from sysproc_client.ending import Ending
from sysproc_client.exec_stream import ExecStream

if TYPE_CHECKING:
    from typing_extensions import Self


class Stdin:
    """The input of a process; write blocks while more than 1 MiB has not been accepted.

    Output that comes meanwhile is kept, up to 16 MiB: whoever writes more than a process takes has to read too.
    """

    def __init__(self, process: "Process") -> None:
        self._process = process

    def write(self, data: bytes) -> None:
        """Send input. Raises ValueError (closed), BrokenPipeError (the process has ended), SysprocError."""
        self._process._write(data)

    def close(self) -> None:
        """No more input; on a terminal, the end-of-file character."""
        self._process._do(lambda machine: machine.close_stdin())


class Output:
    """One of its two streams of output: iterate for its bytes, until the process has ended. Raises SysprocError.

    What the other one says meanwhile is kept, up to 16 MiB; then it has to be read, too, for this one to go on: by
    another thread, or by iterating the process itself.
    """

    def __init__(self, process: "Process", stream: unread.Stream) -> None:
        self._process, self._stream = process, stream

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._process._chunks(self._stream):
            yield chunk.data


class Process:
    """A process: iterate for its output, or `stdout` and `stderr`; write to `stdin`, `wait` for its end.

    It starts when something is read. As a context manager it kills the process if it is left before the end.
    """

    def __init__(self, connection: Connection, start: ExecRequest.Start) -> None:
        self._connection, self._attempts = connection, connection.attempts()
        self._machine, self._changed = ExecMachine(start), threading.Condition()
        self._stream: ExecStream | None = None
        self._reading = False
        self._failure: SysprocError | None = None
        self._unread = unread.Unread()
        self._iterating = 0
        #: Its input.
        self.stdin = Stdin(self)
        #: Its output; with a terminal, all of it.
        self.stdout = Output(self, "stdout")
        #: Its output of errors.
        self.stderr = Output(self, "stderr")

    def __enter__(self) -> "Self":
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
        self._read_until(lambda: self._failure is None and not self._machine.input_full, ahead=True)
        if self._machine.ended is not None:
            raise BrokenPipeError("the process has ended")
        self._do(lambda machine: machine.write(data))

    def resize(self, rows: int, columns: int) -> None:
        """Tell its terminal another size; without one nothing happens. Raises InvalidArgument.

        It does not wait: what the service has against it is raised to who reads.
        """
        self._do(lambda machine: machine.resize(rows, columns))

    def signal(self, number: int) -> None:
        """Send it a signal, 1 to 64; nothing happens after its end. Raises InvalidArgument.

        It does not wait: what the service has against it is raised to who reads.
        """
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
        return self._chunks(None)

    def _chunks(self, stream: unread.Stream | None, deadline: Deadline = NEVER) -> Iterator[Chunk]:
        """Of one stream or of both. Who leaves last lets go of the connection, unless only the time was up."""
        with self._changed:
            self._iterating += 1
        try:
            while True:
                self._read_until(lambda: self._unread.has(stream), ahead=stream is not None, deadline=deadline)
                with self._changed:
                    chunk = self._unread.take(stream)
                    self._changed.notify_all()
                if chunk is not None:
                    yield chunk
                elif self._machine.ended is not None:
                    return
                if deadline.passed:
                    raise deadline.still_running()
        finally:
            with self._changed:
                self._iterating -= 1
                is_last = not self._iterating
            if is_last and (self._over or not deadline.passed):
                self._hang_up()

    def _read_until(self, condition: Callable[[], bool], *, ahead: bool, deadline: Deadline = NEVER) -> None:
        """Read, or wait while another thread does, until the condition holds or the process has ended.

        ahead: what is read may not be what is wanted; so much of it is kept as may be. Late, too, what has
        come already is read. Raises TimedOut.
        """
        looked = False
        while True:
            with self._changed:
                if condition():
                    return
                if self._failure is not None:
                    raise self._failure
                if self._machine.ended is not None:
                    return
                if looked and deadline.passed:
                    raise deadline.still_running()
                looked = True
                if self._reading or (ahead and self._unread.full):
                    self._changed.wait(deadline.left)
                    continue
                self._reading = True
            self._read(deadline)

    def _read(self, deadline: Deadline) -> None:
        """One message, if it comes in time; an error is everybody's."""
        try:
            self._read_from(self._stream or self._open(), deadline)
        except SysprocError as failure:
            self.give_up(failure)
        finally:
            with self._changed:
                self._reading = False
                self._changed.notify_all()

    def _read_from(self, stream: ExecStream, deadline: Deadline) -> None:
        if not stream.has_next(deadline):
            return
        try:
            response = stream.next()
        except grpc.RpcError as error:
            if self._stream is stream:  # else another thread has hung up, and that is all it says
                self._lost(error, deadline)
            return
        with self._changed:
            if self._stream is not stream:
                return
            if response is None:
                raise SysprocError("The stream ended before the process did.", reason="STREAM_ENDED")
            self._unread.add(self._machine.feed(response))
            self._attempts.progressed()

    def _lost(self, error: grpc.RpcError, deadline: Deadline) -> None:
        """Get ready for another stream, or raise."""
        failure, fate = self._connection.failure_of(error), fate_of(error)
        self._hang_up()
        with self._changed:
            news = self._machine.lost(fate, failure)
        pause = 0 if news else self._connection.pause(self._attempts, fate, failure)
        self.ended_within(deadline.no_later(pause))

    # -- the stream

    def _open(self) -> ExecStream:
        with self._changed:
            place = self._connection.channels.place()
            # What is to be sent is asked for by another thread, which waits for this lock.
            call = self._connection.begin(place.processes.Exec, self._requests(place, self._machine.opening()))
            self._stream = ExecStream(place, call, self._tell)
            return self._stream

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _hang_up(self) -> None:
        """Let go of the stream, if there is one; the process lives on."""
        with self._changed:
            stream, self._stream = self._stream, None
            if stream is None:
                return
            self._machine.lost()
            self._changed.notify_all()
        stream.close()

    def _requests(self, place: Place, opening: ExecRequest) -> Iterator[ExecRequest]:
        """What is sent on one stream; ends with it, or when it is not the current one any more."""
        yield opening
        while True:
            with self._changed:
                messages = self._next_messages(place)
            if messages is None:
                return
            yield from messages

    def _next_messages(self, place: Place) -> list[ExecRequest] | None:
        while (stream := self._stream) is not None and stream.place is place and stream.is_alive and not self._over:
            if messages := list(self._machine.to_send()):
                return messages
            self._changed.wait()
        return None

    # -- to the end

    def wait(self, timeout: float | None = None) -> Ended:
        """Read (and drop) output until the process has ended.

        After `timeout` seconds TimedOut is raised (WAIT_TIMEOUT): the process goes on running, and can be waited for
        again. What it is told then reaches it at once; the connection is kept, until its block is left or the client
        is closed. 0: only look.

        Raises SysprocError (as `exec` says), InvalidArgument (no such time).
        """
        for _ in self._chunks(None, Deadline(timeout)):
            pass
        ended = self._machine.ended
        if ended is None:
            raise SysprocError("The process has not ended.", reason="STREAM_ENDED")
        return ended

    def collect(self, timeout: float | None) -> Result:
        """All its output. After `timeout` seconds it is killed, and TimedOut is raised; however it is left, it is over.

        Raises SysprocError.
        """
        with self:
            return self._collect() if timeout is None else self._collect_within(timeout)

    def _collect_within(self, timeout: float) -> Result:
        killing = self.end_by(KILLS, after=timeout)
        try:
            result = self._collect()
        except SysprocError as failure:
            if killing.begun:
                raise too_long(timeout) from failure
            raise
        finally:
            killing.stop()
        if killing.begun:
            raise too_long(timeout)
        return result

    def _collect(self) -> Result:
        output = Collected()
        for chunk in self:
            output.add(chunk)
        return output.result(self.wait())
