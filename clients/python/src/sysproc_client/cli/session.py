"""A command in a container as if it ran here: standard streams, terminal, signals, exit code.

    SIGINT, SIGTERM, SIGHUP, SIGQUIT   passed on; with a terminal, SIGTERM and SIGHUP end the session
    the same again, nothing reaches it  this command ends with 128+n, the process goes on
    nobody reads our output             SIGPIPE to the process, 141

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
from sysproc_client.cli.interrupts import ENDING, SIGNALLED, handling
from sysproc_client.cli.main import OWN_FAILURE, tell
from sysproc_client.cli.output import escaped

if TYPE_CHECKING:
    from sysproc_client.container import Container
    from sysproc_client.process import Process

READ_BYTES = 64 * 1024
# What Ctrl-C is where the terminal makes no signal of it.
INTERRUPT_KEY = b"\x03"
NOT_WAITED_FOR = "sysproc: The process is not waited for any more; it goes on."


class Session:
    """One command and what ends it; code: with what this command ends, where that is not the process's to say."""

    def __init__(self, process: "Process", *, terminal: bool) -> None:
        self.process, self.terminal = process, terminal
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
) -> int:
    """Run the command with this process's streams; its exit code, as a shell has it."""
    size = terminal_size() if tty else None
    environment = {**({"TERM": os.environ["TERM"]} if tty and "TERM" in os.environ else {}), **env}
    argv = [os.fsencode(part) for part in command]
    process = box.exec(argv, env=environment, cwd=os.fsencode(cwd), user=user, tty=size, stdin=interactive)
    session = Session(process, terminal=tty)
    with ExitStack() as stack:
        stack.enter_context(handling(ENDING, session.on_signal))
        if tty:
            stack.enter_context(resizes(process))
        if interactive:
            if tty:  # without -i nobody would take the keys
                stack.enter_context(raw_terminal())
            threading.Thread(target=feed, args=(session,), daemon=True).start()
        return to_end(session)


def to_end(session: Session) -> int:
    """Copy output until the process has ended; the exit code."""
    try:
        copy_output(session)
        ended = session.process.wait()
    except SysprocError as failure:
        if session.code is None:
            raise
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
            else:
                process.stdin.write(data)
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
def raw_terminal() -> Iterator[None]:
    """Every key goes through, and what was set before comes back."""
    if not os.isatty(0):
        yield
        return
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        yield
    finally:
        restore(before)


def restore(attributes: list[int | list[bytes | int]]) -> None:
    """Set the terminal as it was; one that is gone needs nothing."""
    try:
        # Not what waits for output: a terminal that nobody reads would never be put back.
        termios.tcsetattr(0, termios.TCSANOW, attributes)
    except termios.error as error:
        if error.args[0] != errno.EIO:
            raise


@contextmanager
def resizes(process: "Process") -> Iterator[None]:
    """SIGWINCH is passed on as a new size."""
    with handling((signal.SIGWINCH,), lambda *_: process.resize(*terminal_size())):
        yield
