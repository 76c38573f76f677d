"""Nothing crosses between containers, nor from a container to the host, on any channel that we know of.

Each channel first has its control: the same code, with both ends where it is bound to work, must get something across.
What the channels are is in `tests.isolation.channels`; when all of them were tried, the table in docs/ISOLATION.md is
written again.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.isolation.channels import CHANNELS, FAMILIES, Channel, Relation
from tests.isolation.crossing import Crossing, meet
from tests.isolation.page import table, write_section
from tests.isolation.volume_channels import VOLUME_CHANNELS
from tests.isolation.world import World

CLOSED, NOT_HERE, BY_DESIGN, KNOWN = "closed", "–", "by design", "**open**"


class Results:
    """What came of each channel, in each relation."""

    def __init__(self) -> None:
        self.controls: dict[str, Crossing] = {}
        self.cells: dict[tuple[str, Relation], str] = {}

    def control(self, channel: Channel, world: World) -> Crossing:
        """The control's outcome; made once."""
        if channel.name not in self.controls:
            self.controls[channel.name] = meet(channel.name, *world.target_and_attempt(channel.control))
        return self.controls[channel.name]

    def complete(self) -> bool:
        """Whether every channel has been tried in every relation."""
        return all((one.name, relation) in self.cells for one in CHANNELS for relation in Relation)

    def markdown(self) -> str:
        """The section of the page."""
        heads = ("channel", *(relation.value for relation in Relation), "wall", "control")
        parts = []
        for family, channels in FAMILIES.items():
            rows = [self._row(channel) for channel in channels]
            parts.append(f"### {family}\n\n{table(heads, rows)}")
        known = {one.known: one.title for one in CHANNELS if KNOWN in self._row(one)}
        parts += ["### What Linux leaves open", *(f"{title}: {why}" for why, title in known.items())] if known else []
        return "\n\n".join(parts)

    def _row(self, channel: Channel) -> tuple[str, ...]:
        control = self.controls[channel.name]
        shown = channel.control.value if control.evidence else f"not here: {', '.join(control.absent)}"
        cells = (self.cells[channel.name, relation] for relation in Relation)
        return (channel.title, *cells, channel.wall, shown)


@pytest.fixture(scope="module")
def results() -> Iterator[Results]:
    """Collected while the tests run; written when all have."""
    collected = Results()
    yield collected
    if collected.complete():
        write_section("channels", collected.markdown())


def named(channel: Channel) -> str:
    return channel.name


def test_both_ends_of_every_channel_are_there(battery: Path) -> None:
    listed = subprocess.run([battery, "list"], check=True, capture_output=True, text=True).stdout.split()
    named_here = [*(one.name for one in CHANNELS), *(one.name for one in VOLUME_CHANNELS)]
    assert sorted(listed) == sorted(named_here)


@pytest.mark.parametrize("channel", CHANNELS, ids=named)
def test_it_works_where_it_must(channel: Channel, world: World, results: Results) -> None:
    control = results.control(channel, world)
    if control.absent and not control.evidence:
        pytest.skip(f"{channel.control.value}: {', '.join(control.absent)}")
    assert control.evidence, control


@pytest.mark.parametrize("relation", Relation, ids=lambda relation: relation.name.lower())
@pytest.mark.parametrize("channel", CHANNELS, ids=named)
def test_nothing_crosses(channel: Channel, relation: Relation, world: World, results: Results) -> None:
    if not results.control(channel, world).evidence:
        results.cells[channel.name, relation] = NOT_HERE
        pytest.skip(f"its control does not work here: {results.control(channel, world)}")
    if relation in channel.by_design:
        results.cells[channel.name, relation] = BY_DESIGN
        pytest.skip(f"open on purpose: {channel.by_design[relation]}")
    crossing = meet(channel.name, *world.target_and_attempt(relation))
    if channel.known and crossing.evidence:
        results.cells[channel.name, relation] = KNOWN
        pytest.xfail(channel.known)
    assert crossing.evidence == (), crossing
    results.cells[channel.name, relation] = CLOSED
