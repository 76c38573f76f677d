"""A command in a container as if it ran here: standard streams, terminal, signals, exit code.

The terminal is put back whatever happens. The process itself is `sysproc_client.process.Process`.
"""

import os
import shutil
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from sysproc_client.cli.output import escaped

if TYPE_CHECKING:
    from sysproc_client.container import Container
    from sysproc_client.process import Process

READ_BYTES = 64 * 1024
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
SIGNALLED = 128


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
    with ExitStack() as stack:
        if tty:
            stack.enter_context(raw_terminal())
            stack.enter_context(resizes(process))
        else:
            stack.enter_context(signals(process))
        if interactive:
            threading.Thread(target=feed, args=(process,), daemon=True).start()
        copy_output(process)
    ended = process.wait()
    if ended.failure:
        click.echo(f"sysproc: {escaped(ended.failure)}", err=True)
    return ended.exit_code if ended.exit_code is not None else SIGNALLED + (ended.signal or 0)


def copy_output(process: "Process") -> None:
    """Bytes as they come, unchanged and at once."""
    fds = {"stdout": 1, "stderr": 2}
    for chunk in process:
        view = memoryview(chunk.data)
        while view:
            view = view[os.write(fds[chunk.stream], view) :]


def feed(process: "Process") -> None:
    """Standard input, until its end or the process's."""
    try:
        while data := os.read(0, READ_BYTES):
            process.stdin.write(data)
        process.stdin.close()
    except (BrokenPipeError, OSError, ValueError):
        return


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
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(0)
    try:
        with terminating():
            tty.setraw(0)
            yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextmanager
def resizes(process: "Process") -> Iterator[None]:
    """SIGWINCH is passed on as a new size."""
    with handling((signal.SIGWINCH,), lambda *_: process.resize(*terminal_size())):
        yield


@contextmanager
def signals(process: "Process") -> Iterator[None]:
    """Ctrl-C and its like reach the process, and end this command only by way of it."""
    with handling(PASSED_ON, lambda number, _: process.signal(number)):
        yield


@contextmanager
def terminating() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind, so that everything is put back and destroyed."""

    def leave(number: int, _: FrameType | None) -> None:
        raise click.exceptions.Exit(SIGNALLED + number)

    with handling((signal.SIGTERM, signal.SIGHUP), leave):
        yield


@contextmanager
def handling(numbers: Sequence[signal.Signals], handler: Any) -> Iterator[None]:
    """These signals go to the handler inside the block."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
