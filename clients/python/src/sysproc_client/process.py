"""A process in a container, carried over one stream, or over several when connections are lost.

The synchronous shell around `sysproc_client._core.exec_machine`: it sends what the machine says and hands out what
comes. The caller's thread reads; gRPC's own thread takes the messages to send.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

import grpc

from nightos.sysproc.v1.process_service_pb2 import ExecRequest, ExecResponse
from sysproc_client._core.errors import NotFound, SysprocError, TimedOut, Unavailable, from_rpc_error
from sysproc_client._core.exec_machine import Chunk, Ended, ExecMachine, State

if TYPE_CHECKING:
    from nightos.sysproc.v1.process_service_pb2_grpc import ProcessServiceStub

# How long a service that has died may take to come back before the caller is told.
RESUME_S = 30.0
RESUME_PAUSE_S = 0.1
SIGKILL = 9


@dataclass(frozen=True)
class Result:
    """What a command has left: exit_code, or the signal that ended it, and its output."""

    exit_code: int | None
    signal: int | None
    stdout: bytes
    stderr: bytes
    failure: str = ""


class Stdin:
    """The input of a process; write blocks while more than 1 MiB has not been accepted."""

    def __init__(self, process: "Process") -> None:
        self._process = process

    def write(self, data: bytes) -> None:
        """Send input. Raises ValueError after close, BrokenPipeError if the process has ended."""
        self._process._write(data)

    def close(self) -> None:
        """No more input; on a terminal, the end-of-file character."""
        self._process._do(lambda machine: machine.close_stdin())


class Process:
    """A running process: iterate for its output, write to `stdin`, `wait` for its end.

    As a context manager it kills the process if it is left before the end. Iterate from one thread only.
    """

    def __init__(self, stub: "ProcessServiceStub", start: ExecRequest.Start, endpoint: str) -> None:
        self._stub, self._endpoint = stub, endpoint
        self._machine, self._changed = ExecMachine(start), threading.Condition()
        self._generation = 0
        self._resume_until: float | None = None
        self.stdin = Stdin(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        if self._machine.ended is None:
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

    # -- from the caller

    def _do(self, change: Callable[[ExecMachine], None]) -> None:
        with self._changed:
            change(self._machine)
            self._changed.notify_all()

    def _write(self, data: bytes) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._machine.input_full or self._machine.ended is not None)
            if self._machine.ended is not None:
                raise BrokenPipeError("the process has ended")
            self._machine.write(data)
            self._changed.notify_all()

    def resize(self, rows: int, columns: int) -> None:
        """Tell its terminal another size."""
        self._do(lambda machine: machine.resize(rows, columns))

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._do(lambda machine: machine.signal(number))

    # -- the stream

    def __iter__(self) -> Iterator[Chunk]:
        """Its output as it comes, until it has ended. Raises SysprocError."""
        while self._machine.ended is None:
            call = self._stub.Exec(self._requests(), wait_for_ready=self._generation > 1, timeout=None)
            try:
                yield from self._read(call)
            except grpc.RpcError as error:
                self._lost(from_rpc_error(error, self._endpoint))
            finally:
                call.cancel()

    def _read(self, call: Iterator[ExecResponse]) -> Iterator[Chunk]:
        for response in call:
            with self._changed:
                chunks = list(self._machine.feed(response))
                self._resume_until = None
                self._changed.notify_all()
            yield from chunks
            if self._machine.ended is not None:
                return
        raise SysprocError("The stream ended before the process did.", reason="STREAM_ENDED")

    def _requests(self) -> Iterator[ExecRequest]:
        """What is sent on one stream; ends when the stream is not the current one any more."""
        with self._changed:
            self._generation += 1
            mine = self._generation
            opening = self._machine.opening()
        return self._send(mine, opening)

    def _send(self, mine: int, opening: ExecRequest) -> Iterator[ExecRequest]:
        yield opening
        while True:
            with self._changed:
                messages = self._next_messages(mine)
            if messages is None:
                return
            yield from messages

    def _next_messages(self, mine: int) -> list[ExecRequest] | None:
        while True:
            if self._generation != mine or self._machine.ended is not None:
                return None
            if messages := list(self._machine.to_send()):
                return messages
            self._changed.wait()

    def _lost(self, error: SysprocError) -> None:
        """Go on with another stream, or raise: only what a restart of the service explains is tried again."""
        with self._changed:
            self._generation += 1
            unsure = self._machine.state is State.UNSURE
            self._machine.lost(never_arrived=isinstance(error, NotFound) and self._resume_until is not None)
            self._changed.notify_all()
        if isinstance(error, NotFound) and unsure and self._resume_until is not None:
            return
        first_try = self._generation <= 2 and unsure
        if not isinstance(error, Unavailable) or (first_try and error.reason == "UNREACHABLE"):
            raise error
        now = time.monotonic()
        self._resume_until = self._resume_until or now + RESUME_S
        if now > self._resume_until:
            raise error
        time.sleep(RESUME_PAUSE_S)

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
        output = {"stdout": bytearray(), "stderr": bytearray()}
        timer = self._kill_after(timeout)
        try:
            for chunk in self:
                output[chunk.stream] += chunk.data
        finally:
            timer.cancel()
        if timer.finished.is_set() and timer.fired:
            raise TimedOut(f"The command was killed: it took longer than {timeout} s.", reason="COMMAND_TIMEOUT")
        ended = self.wait()
        return Result(ended.exit_code, ended.signal, bytes(output["stdout"]), bytes(output["stderr"]), ended.failure)

    def _kill_after(self, timeout: float | None) -> "KillTimer":
        timer = KillTimer(timeout, lambda: self.signal(SIGKILL))
        if timeout is not None:
            timer.start()
        return timer


class KillTimer(threading.Timer):
    """A timer that knows whether it has fired."""

    def __init__(self, timeout: float | None, kill: Callable[[], None]) -> None:
        super().__init__(timeout or 0.0, self._fire)
        self.daemon, self.fired, self._kill = True, False, kill

    def _fire(self) -> None:
        self.fired = True
        self._kill()
