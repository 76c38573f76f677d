"""`python -m benchmarks.compare BEFORE AFTER`: what became slower or quicker between two runs, and what only looks so.

A ratio of medians says nothing without how far it is to be trusted: each has the range in which it lies in 19 of 20
cases (a bootstrap: the times of both are drawn again, many times). What the peers did meanwhile is the machine's share.
Whose a contender is stands in `benchmarks.contenders`. What a run measures once only (I/O, idle containers, trees) has
no such range: it is shown, and nothing is concluded from it.
"""

import random
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks.contenders import is_peer
from benchmarks.measure import Timing
from benchmarks.results import NoResults, Results, read
from benchmarks.volume_io import PLACES

DRAWS = 1000
# Less is not worth a word.
NOTABLE = 0.05
# Times are kept to the microsecond: one of less is 0.
CLOCK_STEP_MS = 0.001


@dataclass(frozen=True)
class Change:
    """One contender in two runs. ratio: after to before; low and high: where it lies in 19 of 20 cases."""

    benchmark: str
    contender: str
    before_ms: float
    after_ms: float
    low: float
    high: float

    @property
    def ratio(self) -> float:
        """More than 1 is slower."""
        return ratio(self.after_ms, self.before_ms)

    @property
    def verdict(self) -> str:
        """In a word; empty where nothing is certain."""
        if self.low > 1 + NOTABLE:
            return "slower"
        return "quicker" if self.high < 1 - NOTABLE else ""

    @property
    def is_peer(self) -> bool:
        """Whether it is not ours."""
        return is_peer(self.benchmark, self.contender)


def changes(before: Results, after: Results) -> Iterator[Change]:
    """Of everything that both have timed."""
    for benchmark, timings in all_timings(after):
        earlier = {one.contender: one for title, old in all_timings(before) if title == benchmark for one in old}
        for one in timings:
            if one.contender in earlier:
                yield change(benchmark, earlier[one.contender], one)


def all_timings(results: Results) -> Iterator[tuple[str, Sequence[Timing]]]:
    """Each table, the load as well."""
    yield from results.timings.items()
    yield "load", [one.timing for one in results.loads]


def change(benchmark: str, before: Timing, after: Timing) -> Change:
    """Of one contender."""
    chance = random.Random(0)  # the same files say the same each time
    ratios = sorted(ratio(drawn(after, chance), drawn(before, chance)) for _ in range(DRAWS))
    low, high = ratios[DRAWS // 40], ratios[-1 - DRAWS // 40]
    return Change(benchmark, after.contender, before.median_ms, after.median_ms, low, high)


def ratio(after_ms: float, before_ms: float) -> float:
    """Of one to the other; what the clock could not see counts as its step."""
    return max(after_ms, CLOCK_STEP_MS) / max(before_ms, CLOCK_STEP_MS)


def drawn(timing: Timing, chance: random.Random) -> float:
    """The median of as many times, each drawn from all."""
    return statistics.median(chance.choices(timing.times_ms, k=len(timing.times_ms)))


def table(found: Sequence[Change]) -> Table:
    """All of them."""
    table = Table("benchmark", "contender", "before ms", "after ms", "ratio", "19 of 20", "")
    for one in found:
        certain = f"{one.low:.2f} to {one.high:.2f}"
        figures = (f"{one.before_ms:.2f}", f"{one.after_ms:.2f}", f"{one.ratio:.2f}")
        table.add_row(one.benchmark, one.contender, *figures, certain, one.verdict)
    return table


def once_only(results: Results) -> Iterator[tuple[str, float]]:
    """What a run measures once, with its unit."""
    for job in results.io:
        for place, words in PLACES.items():
            if (figure := job.of(place)) is not None:
                yield f"{job.name}, {words}, {job.unit}", figure
    if results.memory_of_mount_kib is not None:
        yield "a mounted volume, KiB", results.memory_of_mount_kib
    if results.idle is not None:
        yield f"each of {results.idle.count} idle containers, KiB", results.idle.each_kib
    for tree in results.trees:
        yield f"destroying a tree of {tree.count}, ms", tree.total_ms
    if results.trees_by_hand is not None:
        yield f"the same by hand of {results.trees_by_hand.count}, ms", results.trees_by_hand.total_ms


def once_table(before: Results, after: Results) -> Table:
    """What both have of it."""
    table = Table("measured once", "before", "after", "ratio")
    old = dict(once_only(before))
    for name, new in dict(once_only(after)).items():
        if old.get(name):
            table.add_row(name, f"{old[name]:.1f}", f"{new:.1f}", f"{new / old[name]:.2f}")
    return table


def other_conditions(before: Results, after: Results) -> Iterator[str]:
    """What was different around both."""
    for name, old, new in (
        *((name, before.machine.get(name), after.machine.get(name)) for name in after.machine),
        *((name, before.versions.get(name), after.versions.get(name)) for name in after.versions),
    ):
        if old != new:
            yield f"{name}: {old or 'none'} before, {new} after"


@click.command()
@click.argument("before", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("after", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--fail", is_flag=True, help="End with 1 if anything of ours is slower.")
def main(before: Path, after: Path, fail: bool) -> None:
    """Compare two files of `python -m benchmarks --json`."""
    try:
        old, new = read(before), read(after)
    except NoResults as failure:
        raise click.ClickException(str(failure)) from failure
    console, found = Console(), list(changes(old, new))
    console.print(table(found))
    console.print(once_table(old, new))
    for line in other_conditions(old, new):
        console.print(line)
    if peers := [one.ratio for one in found if one.is_peer]:
        console.print(f"the peers took {statistics.median(peers):.2f} times as long: that much is the machine's")
    if fail and any(one.verdict == "slower" and not one.is_peer for one in found):
        sys.exit(1)


if __name__ == "__main__":
    main()
