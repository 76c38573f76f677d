"""One run of all benchmarks, as it is kept in a file: every time that was taken, and what it was measured on.

    `python -m benchmarks --json FILE` ─▶ FILE ─▶ `benchmarks.page`      a page with a picture
                                               └▶ `benchmarks.compare`   with another one

Nothing is measured here, and nothing drawn.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.cascade import Cascade, Floor
from benchmarks.idle import Idle
from benchmarks.left_out import LeftOut
from benchmarks.load import Load
from benchmarks.machine import machine, versions
from benchmarks.measure import Timing
from benchmarks.volume_io import Io

# Of the file; a reader refuses others.
SCHEMA = 1


@dataclass
class Results:
    """All figures of one run. memory_of_mount_kib: what the kernel has more for each volume that is mounted.

    decrypted_by: what decrypts encrypted volumes here. left_out: by benchmark, who does not run here, and why.
    """

    timings: dict[str, Sequence[Timing]] = field(default_factory=dict)
    loads: Sequence[Load] = field(default_factory=list)
    io: Sequence[Io] = field(default_factory=list)
    decrypted_by: str | None = None
    memory_of_mount_kib: float | None = None
    idle: Idle | None = None
    trees: Sequence[Cascade] = field(default_factory=list)
    trees_by_hand: Floor | None = None
    left_out: dict[str, LeftOut] = field(default_factory=dict)
    machine: dict[str, str] = field(default_factory=machine)
    versions: dict[str, str] = field(default_factory=versions)
    taken: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def left_out_of(self, benchmark: str) -> LeftOut:
        """To be filled."""
        return self.left_out.setdefault(benchmark, {})

    def write(self, file: Path) -> None:
        """As JSON, a line for each part."""
        parts = (
            f"{json.dumps(name)}: {json.dumps(part)}" for name, part in ({"schema": SCHEMA} | asdict(self)).items()
        )
        file.write_text("{" + ",\n".join(parts) + "}\n")


class NoResults(Exception):
    """A file that does not hold what a run writes; the text says why."""


def read(file: Path) -> Results:
    """What `Results.write` has written. Raises NoResults, OSError."""
    try:
        found = json.loads(file.read_text())
    except ValueError as failure:
        raise NoResults(f"{file} is not JSON: {failure}") from failure
    if not isinstance(found, dict) or found.pop("schema", None) != SCHEMA:
        raise NoResults(f"{file} was not written by this version: `python -m benchmarks --json {file}` makes one.")
    try:
        return parsed(found)
    except (AttributeError, KeyError, TypeError) as failure:
        raise NoResults(f"{file} is not whole: {failure}") from failure


def parsed(found: dict[str, Any]) -> Results:
    """Of the parts of a file."""
    timings: dict[str, Sequence[Timing]] = {
        title: [Timing(one["contender"], tuple(one["times_ms"])) for one in several]
        for title, several in found.pop("timings").items()
    }
    loads = [Load(**one | {"times_ms": tuple(one["times_ms"])}) for one in found.pop("loads")]
    idle, alone = found.pop("idle"), found.pop("trees_by_hand")
    return Results(
        timings=timings,
        loads=loads,
        io=[Io(**one) for one in found.pop("io")],
        idle=None if idle is None else Idle(**idle),
        trees=[Cascade(**one) for one in found.pop("trees")],
        trees_by_hand=None if alone is None else Floor(**alone),
        **found,
    )
