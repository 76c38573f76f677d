"""What is printed: tables for people, JSON for programs; times and sizes in words.

What comes from inside a container is never trusted: control characters are shown, not obeyed.
"""

import json
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sysproc_client.container import Container

_UNITS = ("B", "K", "M", "G", "T", "P")
_STEP = 1024
_GAP = "  "
# What is shorter says nothing any more.
LEAST_CUT = 16
_AGES = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def escaped(text: str | bytes) -> str:
    """Text with every control character written out."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def print_json(value: Any) -> None:
    """As a document, with a newline."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=not sys.stdout.isatty()))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, cut_last: bool = False) -> None:
    """Aligned columns. Nothing is cut, since ids are copied; on a terminal perhaps the last one, for who allows it."""
    cells = [[name.upper() for name in columns], *([escaped(cell) for cell in row] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(columns))]
    on_terminal = sys.stdout.isatty()
    if cut_last and on_terminal:
        room = shutil.get_terminal_size().columns - sum(widths[:-1]) - len(_GAP) * (len(columns) - 1)
        cells = [[*row[:-1], cut(row[-1], max(room, LEAST_CUT))] for row in cells]
    for number, row in enumerate(cells):
        line = _GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        click.echo(click.style(line, bold=True) if on_terminal and not number else line)


def cut(text: str, most: int) -> str:
    """At most so many characters, and a sign that there were more."""
    return text if len(text) <= most else text[: most - 1] + "…"


def human_size(value: int | None) -> str:
    """256M; a dash for none."""
    if value is None:
        return "-"
    amount, unit = float(value), 0
    while amount >= _STEP and unit < len(_UNITS) - 1:
        amount, unit = amount / _STEP, unit + 1
    return f"{amount:.0f}{_UNITS[unit]}" if amount == int(amount) else f"{amount:.1f}{_UNITS[unit]}"


def human_age(moment: datetime) -> str:
    """How long ago: 3m."""
    seconds = max(0, int(time.time() - moment.timestamp()))
    return next((f"{seconds // size}{unit}" for size, unit in _AGES if seconds >= size), "0s")


def iso(moment: datetime) -> str:
    """For programs: RFC 3339, in UTC."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def limits_of(box: "Container") -> dict[str, int | None]:
    """The limits; None where there is none."""
    limits = box.message.limits
    given = {field.name: value for field, value in limits.ListFields()}
    return {field.name: given.get(field.name) for field in limits.DESCRIPTOR.fields}


def as_json(box: "Container") -> dict[str, Any]:
    """A container for programs."""
    message = box.message
    how = message.exit.WhichOneof("exit")
    return {
        "id": box.id,
        "name": box.name,
        "parent": box.parent_id,
        "state": box.state,
        "reason": message.reason,
        "exit": {how: getattr(message.exit, how)} if how else None,
        "oom_killed": message.oom_killed,
        "image": message.image,
        "hostname": message.hostname,
        "limits": limits_of(box),
        "labels": dict(message.labels),
        "environment": {
            variable.name.decode("utf-8", "backslashreplace"): variable.value.decode("utf-8", "backslashreplace")
            for variable in message.environment
        },
        "created": iso(box.created),
        "expires": iso(message.expire_time.ToDatetime(tzinfo=UTC)) if message.HasField("expire_time") else None,
        "idle_timeout_s": message.idle_timeout.ToMilliseconds() / 1000 if message.HasField("idle_timeout") else None,
        "delegate": message.delegate,
        "api_users": "all" if message.api_users.all else list(message.api_users.uids),
        "etag": message.etag,
    }
