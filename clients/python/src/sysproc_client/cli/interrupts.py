"""Signals to this command while it does something that must not be left half done, or has to be undone.

What they mean to a running process is in `sysproc_client.cli.session`.
"""

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
SIGNALLED = 128
# One that comes again so soon is the same one: timeout(1) sends it to the process and to its group.
SAME_S = 1.0


@contextmanager
def loading() -> Iterator[None]:
    """They wait until the modules of the block are loaded: Python's import may lose an exception, and so the signal."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def held_back() -> Iterator[None]:
    """They wait until the block is left, and end this command then; one that comes again later does so at once."""
    came: list[tuple[int, float]] = []

    def hold(number: int, _: FrameType | None) -> None:
        if came and time.monotonic() - came[0][1] > SAME_S:
            raise click.exceptions.Exit(SIGNALLED + number)
        came.append((number, time.monotonic()))

    with handling(ENDING, hold):
        yield
    if came:
        raise click.exceptions.Exit(SIGNALLED + came[0][0])


@contextmanager
def finishing(what: str) -> Iterator[None]:
    """As `held_back`, while something is made that stays; who has interrupted it is told that it is there, or may be.

    what: its name in a sentence, as "the container".
    """
    made = False
    try:
        with held_back():
            yield
            made = True
    except click.exceptions.Exit:
        click.echo(f"sysproc: Interrupted; {what} {'was' if made else 'may be'} made all the same.", err=True)
        raise


@contextmanager
def unwinding() -> Iterator[None]:
    """They unwind, so that everything is put back and destroyed."""

    def leave(number: int, _: FrameType | None) -> None:
        raise click.exceptions.Exit(SIGNALLED + number)

    with handling(ENDING, leave):
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
