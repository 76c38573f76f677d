"""One exec as a state machine without I/O: what to send, what came, how to go on after a lost connection.

    NEW --opening()--> Start is sent --Started--> RUNNING --Exited--> ENDED
     ^                     |                        |
     | NOT_FOUND, refused: | the stream is lost;    | the stream is lost
     | it never arrived    v ALREADY_EXISTS         v
     +------------ UNSURE --opening()--> Attach with the offsets reached --Started--> RUNNING
                     ^
    only_attach() ---+  of a process that somebody else has started: from what is kept of it, and never a Start

Output counts from byte 0 of each stream; what comes twice is dropped here. Input is kept until the service has
accepted it, and sent again from there; at most a window of it is on its way, so that the service never has to let the
stream wait, and a signal with it. Drawn for the wire in process_service.proto; when a stream is tried again is decided
in `sysproc_client._core.retry`.
"""

import uuid
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from nightos.sysproc.v1.container_pb2 import ExitStatus
from nightos.sysproc.v1.process_service_pb2 import ExecRequest, ExecResponse, WindowSize
from sysproc_client._core.errors import AlreadyExists, NotFound, SysprocError
from sysproc_client._core.retry import Fate
from sysproc_client._core.values import count

STDIN_CHUNK = 64 * 1024
# So much input may be on its way before the service has accepted it; more waits in the caller.
STDIN_WINDOW = 1024 * 1024
# Start is sent again if it never arrived; a service that keeps contradicting itself is given up.
MOST_STARTS = 5
# After so much output at the latest the service is told what it may forget.
RECEIVED_EVERY = 256 * 1024
# After which part of the service's bound it has to be told, so that the process never waits for that.
BOUND_PART = 4


class State(Enum):
    """Where the exec is, as far as the client knows."""

    NEW = "new"
    UNSURE = "unsure"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True)
class Chunk:
    """Output. lost: bytes before it that are gone (they were dropped, as asked for at the start)."""

    stream: Literal["stdout", "stderr"]
    data: bytes
    lost: int = 0


@dataclass(frozen=True)
class Ended:
    """How the process ended. failure: why it could not be started, empty if it was."""

    exit_code: int | None
    signal: int | None
    failure: str


@dataclass
class ExecMachine:
    """One exec, from the first message to the exit; the shell feeds it and sends what it says."""

    start: ExecRequest.Start
    state: State = State.NEW
    ended: Ended | None = None
    _reached: dict[str, int] = field(default_factory=lambda: {"stdout": 0, "stderr": 0})
    _acknowledged: int = 0
    _received_every: int = RECEIVED_EVERY
    _input: bytearray = field(default_factory=bytearray)
    _input_base: int = 0
    _input_sent: int = 0
    _input_closed: bool = False
    _close_sent: bool = False
    _control: deque[ExecRequest] = field(default_factory=deque)
    _starts: int = 0
    _began_with_start: bool = False
    _answered: bool = False
    _of_another: bool = False
    _joined: bool = False

    def __post_init__(self) -> None:
        if not self.start.exec_id:
            self.start.exec_id = str(uuid.uuid4())

    def only_attach(self) -> None:
        """It was started before, by whomever: join it where its output and its input are."""
        self.state, self._of_another = State.UNSURE, True

    # -- sending

    def opening(self) -> ExecRequest:
        """The first message of a stream: Start, or Attach where it was begun."""
        self._answered = False
        self._began_with_start = self.state is State.NEW
        if self.state is State.NEW:
            self.state = State.UNSURE
            self._starts += 1
            return ExecRequest(start=self.start)
        attach = ExecRequest.Attach(container=self.start.container, exec_id=self.start.exec_id)
        if self._joined or not self._of_another:
            attach.stdout_offset, attach.stderr_offset = self._reached["stdout"], self._reached["stderr"]
        return ExecRequest(attach=attach)

    def lost(self, fate: Fate = Fate.UNKNOWN, error: SysprocError | None = None) -> bool:
        """The stream is gone; the next one begins with what `opening` says.

        Whether the error is only news of a Start that was sent before: that it has arrived, or that it never did.
        """
        self._input_sent = self._input_base
        self._close_sent = False
        if self.state is not State.UNSURE:
            return False
        if self._began_with_start:
            if fate in (Fate.REFUSED, Fate.UNSENT):
                self.state, self._starts = State.NEW, self._starts - 1
            return self._starts > 1 and isinstance(error, AlreadyExists)
        if isinstance(error, NotFound) and self._starts < MOST_STARTS and not self._of_another:
            self.state = State.NEW
            return True
        return False

    def to_send(self) -> Iterator[ExecRequest]:
        """What can be sent now, in order; empty until the service has answered the opening."""
        if self.state is not State.RUNNING or not self._answered:
            return  # where its input goes on is not known yet
        while self._control:
            yield self._control.popleft()
        yield from self._received()
        while self._input_sent < self._input_base + min(len(self._input), STDIN_WINDOW):
            yield self._next_input()
        if self._input_closed and not self._close_sent and self._input_sent == self._input_base + len(self._input):
            self._close_sent = True
            yield ExecRequest(close_stdin=ExecRequest.CloseStdin())

    def _next_input(self) -> ExecRequest:
        at = self._input_sent - self._input_base
        data = bytes(self._input[at : at + STDIN_CHUNK])
        offset, self._input_sent = self._input_sent, self._input_sent + len(data)
        return ExecRequest(stdin=ExecRequest.Stdin(offset=offset, data=data))

    def _received(self) -> Iterator[ExecRequest]:
        total = sum(self._reached.values())
        if total - self._acknowledged >= self._received_every:
            self._acknowledged = total
            offsets = ExecRequest.Received(stdout_offset=self._reached["stdout"], stderr_offset=self._reached["stderr"])
            yield ExecRequest(received=offsets)

    # -- what the caller wants

    def write(self, data: bytes) -> None:
        """Queue input. ValueError after close_stdin."""
        if self._input_closed:
            raise ValueError("stdin is closed")
        self._input += data

    def close_stdin(self) -> None:
        """No more input."""
        self._input_closed = True

    def resize(self, rows: int, columns: int) -> None:
        """Another size of the terminal. Raises InvalidArgument."""
        size = WindowSize(rows=count(rows, "rows"), columns=count(columns, "columns"))
        self._control.append(ExecRequest(resize=size))

    def signal(self, number: int) -> None:
        """A signal for the process. Raises InvalidArgument."""
        self._control.append(ExecRequest(signal=ExecRequest.Signal(number=count(number, "a signal"))))

    @property
    def input_full(self) -> bool:
        """Whether more input should wait."""
        return len(self._input) >= STDIN_WINDOW

    # -- receiving

    def feed(self, response: ExecResponse) -> Iterator[Chunk]:
        """Take what came; the output in it that is new."""
        kind = response.WhichOneof("response")
        if kind == "started":
            self._started(response.started)
        elif kind == "stdin_accepted":
            self._accepted(response.stdin_accepted.offset)
        elif kind == "exited":
            self.state, self.ended = State.ENDED, ended_from(response.exited)
        elif kind == "stdout":
            yield from self._output("stdout", response.stdout)
        elif kind == "stderr":
            yield from self._output("stderr", response.stderr)

    def _started(self, started: ExecResponse.Started) -> None:
        self.state, self._answered = State.RUNNING, True
        if started.spool_bytes:
            self._received_every = min(RECEIVED_EVERY, started.spool_bytes // BOUND_PART)
        if self._of_another and not self._joined:
            self._join(started)
        self._accepted(started.stdin_offset)
        self._input_sent = max(self._input_base, started.stdin_offset)

    def _join(self, started: ExecResponse.Started) -> None:
        """What others have read and typed is no loss, and nothing of ours."""
        self._joined = True
        self._reached = {"stdout": started.stdout_offset, "stderr": started.stderr_offset}
        self._acknowledged = sum(self._reached.values())
        self._input_base = self._input_sent = started.stdin_offset

    def _accepted(self, offset: int) -> None:
        done = max(0, offset - self._input_base)
        del self._input[:done]
        self._input_base += done
        self._input_sent = max(self._input_sent, self._input_base)

    def _output(self, stream: Literal["stdout", "stderr"], output: ExecResponse.Output) -> Iterator[Chunk]:
        reached = self._reached[stream]
        new = output.data[max(0, reached - output.offset) :]
        gap = max(0, output.offset - reached)
        self._reached[stream] = max(reached, output.offset + len(output.data))
        if new:
            yield Chunk(stream, new, gap)


def ended_from(exited: ExecResponse.Exited) -> Ended:
    """How it ended, of the message."""
    status: ExitStatus = exited.status
    if status.WhichOneof("exit") == "signal":
        return Ended(None, status.signal, exited.failure)
    return Ended(status.code, None, exited.failure)
