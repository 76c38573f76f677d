"""Tables for people: aligned columns, or one block a row where the window is too narrow for them.

Nothing is cut, since ids are copied; on a terminal perhaps the last column, for a table that allows it. What programs
read is in `sysproc_client.cli.output`.
"""

import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence

import click

from sysproc_client.cli.output import escaped

_GAP = "  "
# What is shorter says nothing any more.
LEAST_CUT = 16
COLOURS = {
    "running": "green",
    "frozen": "cyan",
    "stopped": "yellow",
    "failed": "red",
    "yes": "green",
    "no": "red",
    "fine": "green",
    "note": "cyan",
    "warning": "yellow",
    "error": "red",
}


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, cut_last: bool = False) -> None:
    """Print it. cut_last: the last column may lose its end on a terminal."""
    heads = [name.upper() for name in columns]
    cells = [[escaped(cell) for cell in row] for row in rows]
    widths = [max(map(width, column)) for column in zip(heads, *cells, strict=True)]
    if not sys.stdout.isatty():
        _print_lines([heads, *cells], widths)
        return
    room = shutil.get_terminal_size().columns
    least = [*widths[:-1], min(widths[-1], LEAST_CUT)] if cut_last else widths
    if sum(least) + len(_GAP) * (len(widths) - 1) > room and cells:
        _print_blocks(heads, cells)
        return
    if cut_last:
        left = room - sum(widths[:-1]) - len(_GAP) * (len(widths) - 1)
        cells = [[*row[:-1], cut(row[-1], left)] for row in cells]
    click.secho(aligned(heads, widths).rstrip(), bold=True)
    _print_lines(cells, widths)


def _print_lines(rows: Sequence[Sequence[str]], widths: Sequence[int]) -> None:
    for row in rows:
        click.echo(aligned(row, widths))


def _print_blocks(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """One row after the other, each a cell a line, with an empty line between."""
    most = max(map(width, heads))
    for number, row in enumerate(rows):
        if number:
            click.echo()
        for head, cell in zip(heads, row, strict=True):
            if cell:
                click.echo(f"{click.style(padded(head, most), bold=True)}{_GAP}{coloured(cell)}")


def aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    """A line, without blanks at its end."""
    last = max((at for at, cell in enumerate(row) if cell), default=0)
    cells = [padded(cell, most) if at < last else cell for at, (cell, most) in enumerate(zip(row, widths, strict=True))]
    return _GAP.join(coloured(cell) for cell in cells[: last + 1])


def coloured(cell: str) -> str:
    """A state in its colour; click takes that away again where the output is no terminal."""
    colour = COLOURS.get(cell.strip())
    return click.style(cell, fg=colour) if colour else cell


def padded(text: str, most: int) -> str:
    """With blanks up to this width."""
    return text + " " * (most - width(text))


def width(text: str) -> int:
    """How many columns of a terminal it takes."""
    return sum(0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF") for char in text)


def cut(text: str, most: int) -> str:
    """At most so many columns, and a sign that there were more."""
    if width(text) <= most:
        return text
    while width(text) > most - 1:
        text = text[:-1]
    return f"{text}…"
