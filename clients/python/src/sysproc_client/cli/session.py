"""A command in a container as if it ran here: standard streams, terminal, signals, exit code.

    SIGINT, SIGTERM, SIGHUP, SIGQUIT   passed on; with a terminal, SIGTERM and SIGHUP end the session
    the same again, nothing reaches it  this command ends with 128+n, the process goes on
    nobody reads our output             SIGPIPE to the process, 141
    SIGTSTP                             the terminal is put back while this command is stopped
    the detach keys                     this command ends with 0, the process goes on

The terminal is put back whatever happens. The process itself is `sysproc_client.process.Process`; what signals do
while a container is made or destroyed is in `sysproc_client.cli.interrupts`.
"""

import errno
import os
import select
import shutil
import signal
import termios
import threading
import tty
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

import click

from sysproc_client._core.errors import SysprocError
from sysproc_client._core.killing import BROKEN_PIPES, HANG_UPS
from sysproc_client.cli.detaching import DetachKeys
from sysproc_client.cli.interrupts import ENDING, SIGNALLED, handling
from sysproc_client.cli.main import OWN_FAILURE, tell
from sysproc_client.cli.output import escaped

if TYPE_CHECKING:
    from sysproc_client.container import Container
    from sysproc_client.process import Process

READ_BYTES = 64 * 1024
# What Ctrl-C is where the terminal makes no signal of it.
INTERRUPT_KEY = b"\x03"
DETACHED = "DETACHED"
NOT_WAITED_FOR = "sysproc: The process is not waited for any more; it goes on."


class Session:
    """One command and what ends it; code: with what this command ends, where that is not the process's to say."""

    def __init__(self, process: "Process", *, terminal: bool, detach_keys: bytes = b"") -> None:
        self.process, self.terminal = process, terminal
        self.keys = DetachKeys(detach_keys if terminal else b"")
        self.code: int | None = None
        self.output_lost = False
        self._kept_back = False

    def on_signal(self, number: int, _: FrameType | None) -> None:
        """Pass it on, or end; see the module's docstring."""
        if self.code is not None or (self._kept_back and self.process.away):
            click.echo(NOT_WAITED_FOR, err=True)
            raise click.exceptions.Exit(SIGNALLED + number)
        self._kept_back = self.process.away
        if self.terminal and number in (signal.SIGTERM, signal.SIGHUP):
            self._end(HANG_UPS, SIGNALLED + number)
        else:
            self.process.signal(number)

    def on_output_error(self, error: OSError) -> None:
        """Nobody takes its output any more: it has to end, as a local one would."""
        self.output_lost = True
        if self.code is not None:
            return
        if error.errno == errno.EPIPE:
            self._end(BROKEN_PIPES, SIGNALLED + signal.SIGPIPE)
        elif error.errno == errno.EIO and self.terminal:
            self._end(HANG_UPS, SIGNALLED + signal.SIGHUP)
        else:
            click.echo(f"sysproc: output: {error.strerror}", err=True)
            self._end(BROKEN_PIPES, OWN_FAILURE)

    def detach(self) -> None:
        """Leave the process to itself."""
        self.code = 0
        self.process.give_up(SysprocError("Detached.", reason=DETACHED))

    def _end(self, signals: Sequence[int], code: int) -> None:
        self.code = code
        self.process.end_by(signals)


def run_process(
    box: "Container",
    command: Sequence[str],
    *,
    interactive: bool,
    tty: bool,
    cwd: str,
    env: Mapping[str, str],
    user: int | tuple[int, int] | None,
    detach_keys: bytes = b"",
) -> int:
    """Run the command with this process's streams; its exit code, as a shell has it."""
    size = terminal_size() if tty else None
    environment = {**({"TERM": os.environ["TERM"]} if tty and "TERM" in os.environ else {}), **env}
    argv = [os.fsencode(part) for part in command]
    process = box.exec(argv, env=environment, cwd=os.fsencode(cwd), user=user, tty=size, stdin=interactive)
    return carry(process, interactive=interactive, tty=tty, detach_keys=detach_keys)


def carry(process: "Process", *, interactive: bool, tty: bool, detach_keys: bytes = b"") -> int:
    """Between the process and this one's streams, to its end; the exit code."""
    session = Session(process, terminal=tty, detach_keys=detach_keys)
    with ExitStack() as stack:
        stack.enter_context(handling(ENDING, session.on_signal))
        if tty:
            stack.enter_context(resizes(process))
        if interactive:
            if tty:  # without -i nobody would take the keys
                stack.enter_context(raw_terminal(process))
            threading.Thread(target=feed, args=(session,), daemon=True).start()
        code = to_end(session)
    if session.keys.complete:
        click.echo(f"\nsysproc: Detached from {process.exec_id}; `sysproc attach` comes back.", err=True)
    return code


def to_end(session: Session) -> int:
    """Copy output until the process has ended; the exit code."""
    try:
        copy_output(session)
        ended = session.process.wait()
    except SysprocError as failure:
        if session.code is None:
            raise
        if failure.reason == DETACHED:
            return session.code
        return tell(failure, session.code)
    if session.code is not None:
        return session.code
    if ended.failure:
        click.echo(f"sysproc: {escaped(ended.failure)}", err=True)
    return ended.exit_code if ended.exit_code is not None else SIGNALLED + (ended.signal or 0)


def copy_output(session: Session) -> None:
    """Bytes as they come, unchanged and at once; dropped when nobody takes them."""
    fds = {"stdout": 1, "stderr": 2}
    for chunk in session.process:
        try:
            if not session.output_lost:
                write(fds[chunk.stream], chunk.data)
        except OSError as error:
            session.on_output_error(error)


def write(fd: int, data: bytes) -> None:
    """All of it, also where the fd does not wait by itself."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            wait_for(fd, select.POLLOUT)


def read(fd: int) -> bytes:
    """What is there, also where the fd does not wait by itself; empty at the end."""
    while True:
        try:
            return os.read(fd, READ_BYTES)
        except BlockingIOError:
            wait_for(fd, select.POLLIN)


def wait_for(fd: int, event: int) -> None:
    """Until the fd is ready, or broken."""
    poll = select.poll()
    poll.register(fd, event)
    poll.poll()


def feed(session: Session) -> None:
    """Standard input, until its end or the process's."""
    process = session.process
    try:
        while data := standard_input():
            if session.terminal and process.away and INTERRUPT_KEY in data:
                os.kill(os.getpid(), signal.SIGINT)
            elif data := session.keys.take(data):
                process.stdin.write(data)
            if session.keys.complete:
                session.detach()
                return
        process.stdin.close()
    except (BrokenPipeError, SysprocError):
        return  # whoever reads its output is told the same


def standard_input() -> bytes:
    """The next of it; what cannot be read is its end."""
    try:
        return read(0)
    except OSError as error:
        if error.errno != errno.EIO:  # the terminal is gone
            click.echo(f"sysproc: input: {error.strerror}", err=True)
        return b""


def terminal_size() -> tuple[int, int]:
    """Rows and columns of this terminal, whichever of the standard streams is on it."""
    for fd in (0, 1, 2):
        with suppress(OSError):
            size = os.get_terminal_size(fd)
            if size.lines and size.columns:
                return size.lines, size.columns
    columns, rows = shutil.get_terminal_size()
    return rows, columns


@contextmanager
def raw_terminal(process: "Process") -> Iterator[None]:
    """Every key goes through, and what was set before comes back; also for as long as this command is stopped."""
    if not os.isatty(0):
        yield
        return
    before = termios.tcgetattr(0)

    def stop(*_: object) -> None:
        restore(before)
        os.kill(os.getpid(), signal.SIGSTOP)
        # Here it goes on: in the foreground again, or the next line stops it as it does every program.
        set_raw()
        redraw(process)

    try:
        with handling((signal.SIGTSTP,), stop):
            set_raw()
            yield
    finally:
        restore(before)


def set_raw() -> None:
    """Every key goes through; what was typed ahead is kept."""
    tty.setraw(0, termios.TCSANOW)


def restore(attributes: list[int | list[bytes | int]]) -> None:
    """Set the terminal as it was; one that is gone needs nothing."""
    try:
        # Not what waits for output: a terminal that nobody reads would never be put back.
        termios.tcsetattr(0, termios.TCSANOW, attributes)
    except termios.error as error:
        if error.args[0] != errno.EIO:
            raise


def redraw(process: "Process") -> None:
    """Make what fills the screen draw it anew: it does when the size changes, and in no other way."""
    rows, columns = terminal_size()
    process.resize(rows, max(1, columns - 1))
    process.resize(rows, columns)


@contextmanager
def resizes(process: "Process") -> Iterator[None]:
    """SIGWINCH is passed on as a new size."""
    with handling((signal.SIGWINCH,), lambda *_: process.resize(*terminal_size())):
        yield
