"""How far a long transfer is: one line on a terminal, written over and over; elsewhere nothing.

    42%  ████████▍             12M of 30M  8M/s  2s left  118 entries

What does not fit into the window is left out, from the end on. What is transferred is in the subcommands.
"""

import os
import shutil
import stat
import sys
import time
from typing import TYPE_CHECKING

import click

from sysproc_client.cli.output import human_size

if TYPE_CHECKING:
    from sysproc_client.images import Progress

# Of a line that is written over and over.
EVERY_S = 0.1
BAR_WIDTH = 24
_EIGHTHS = " ▏▎▍▌▋▊▉"
_GAP = "  "
# Before that a rate says nothing.
_RATE_AFTER_S = 0.5
_CLEAR = "\r\033[K"


class shown_progress:
    """A context manager that takes the line away at the end; call it with how far it is."""

    def __init__(self, total: int = 0) -> None:
        """total: bytes, if that is known."""
        self._total = total

    def __enter__(self) -> "shown_progress":
        self._shown, self._begun, self._next = sys.stderr.isatty(), time.monotonic(), 0.0
        return self

    def __call__(self, done: int, total: int = 0, more: str = "") -> None:
        """Show it, unless that was done just now."""
        now = time.monotonic()
        if self._shown and now >= self._next:
            self._next = now + EVERY_S
            columns = shutil.get_terminal_size().columns - 1
            text = line(done, total or self._total, now - self._begun, columns, more)
            click.echo(f"{_CLEAR}{text}", nl=False, err=True)

    def __exit__(self, *_: object) -> None:
        if self._shown:
            click.echo(_CLEAR, nl=False, err=True)


def of_entries(shown: shown_progress) -> "Progress":
    """For what is unpacked as it arrives."""
    return lambda progress: shown(progress.received_bytes, more=f"{progress.entries} entries")


def line(done: int, total: int, elapsed: float, columns: int, more: str = "") -> str:
    """What is shown of it in a window of this width."""
    rate = done / elapsed if elapsed >= _RATE_AFTER_S else 0
    parts = [human_size(done)]
    if total:
        done = min(done, total)
        parts = [f"{done * 100 // total:3}%", bar(done / total), f"{human_size(done)} of {human_size(total)}"]
    parts += [f"{human_size(int(rate))}/s"] if rate else []
    parts += [f"{int((total - done) / rate)}s left"] if rate and total > done else []
    parts += [more] if more else []
    while len(parts) > 1 and len(_GAP.join(parts)) > columns:
        parts.pop()
    return _GAP.join(parts)


def bar(share: float) -> str:
    """So much of it, in eighths of a character."""
    eighths = int(share * BAR_WIDTH * 8)
    full, rest = divmod(eighths, 8)
    return f"{'█' * full}{_EIGHTHS[rest] if full < BAR_WIDTH else ''}".ljust(BAR_WIDTH)


def size_of(source: str) -> int:
    """Of a file, if that is what it is; 0 where it is not known before."""
    try:
        found = os.stat(source)
    except OSError:
        return 0  # whoever opens it says why
    return found.st_size if stat.S_ISREG(found.st_mode) else 0
