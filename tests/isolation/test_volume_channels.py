"""Through a volume that two containers have, exactly that crosses which is opened on purpose, and in no other way.

What the channels are is in `tests.isolation.volume_channels`; when all of them were tried, the table in
docs/ISOLATION.md is written again.
"""

import subprocess
from collections.abc import Iterator

import pytest

from sysproc_client import Client
from tests.e2e.daemon import RunningDaemon
from tests.isolation.crossing import Crossing, meet
from tests.isolation.page import table, write_section
from tests.isolation.volume_channels import VOLUME_CHANNELS, Opened, Sharing, VolumeChannel, Way
from tests.isolation.world import VOLUME, World

# Where the first filesystem of a volume begins in its file.
OFFSET = 1 << 20
CELLS = [(sharing, way) for sharing in Sharing for way in Way]


class Results:
    """What came of each channel."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[str, ...]] = {}

    def note(self, channel: VolumeChannel, found: Opened, control: Crossing) -> None:
        """A line of the table."""
        shown = channel.control.value if control.evidence else f"not here: {', '.join(control.absent)}"
        cells = ("open" if cell in found else "closed" for cell in CELLS)
        self.rows[channel.name] = (channel.title, *cells, channel.wall, shown)

    def markdown(self) -> str:
        """The section of the page."""
        heads = ("channel", *(f"{sharing.value}: {way.value}" for sharing, way in CELLS), "wall", "control")
        return table(heads, (self.rows[one.name] for one in VOLUME_CHANNELS))


@pytest.fixture(scope="module")
def results() -> Iterator[Results]:
    """Collected while the tests run; written when all have."""
    collected = Results()
    yield collected
    if len(collected.rows) == len(VOLUME_CHANNELS):
        write_section("volumes", collected.markdown())


def crossings(channel: VolumeChannel, world: World) -> Iterator[tuple[tuple[Sharing, Way], tuple[str, ...]]]:
    """What crosses, in each sharing and way: each of the two sets the channel up once, for the other to try."""
    for sharing in Sharing:
        owner, other = world.owner_and_other(sharing)
        for target, attempt, back, forth in (
            (owner, other, Way.TO_OWNER, Way.TO_OTHER),
            (other, owner, Way.TO_OTHER, Way.TO_OWNER),
        ):
            met = meet(channel.name, target, attempt)
            yield (sharing, back), met.at_target
            yield (sharing, forth), met.at_attempt


@pytest.mark.parametrize("channel", VOLUME_CHANNELS, ids=lambda channel: channel.name)
def test_what_crosses_is_what_is_opened(channel: VolumeChannel, world: World, results: Results) -> None:
    control = meet(channel.name, *world.target_and_attempt(channel.control))
    if control.absent and not control.evidence:
        pytest.skip(f"{channel.control.value}: {', '.join(control.absent)}")
    assert control.evidence, control
    seen = list(crossings(channel, world))
    found = frozenset(cell for cell, evidence in seen if evidence)
    assert found == channel.opened, seen
    results.note(channel, found, control)


def test_a_device_node_in_a_volume_is_no_device(client: Client, daemon: RunningDaemon) -> None:
    """No container can make one: the file of the volume has it, as one from elsewhere might."""
    box, before = client.create(), set((daemon.state_dir / "volumes").iterdir())
    volume = client.volumes.create("nodes", size="32M", owner=box)
    (file,) = set((daemon.state_dir / "volumes").iterdir()) - before
    made = ["debugfs", "-w", "-R", "mknod zero c 1 5", f"{file}?offset={OFFSET}"]
    subprocess.run(made, check=True, capture_output=True)
    read = f'mount -o loop,ro,offset={OFFSET} "$0" /mnt && head -c 3 /mnt/zero'
    on_host = subprocess.run(["unshare", "-m", "sh", "-c", read, file], check=False, capture_output=True)
    assert on_host.stdout == b"\0\0\0", on_host.stderr
    volume.mount(box, VOLUME, suid=True)
    inside = box.run(["sh", "-c", f"test -c {VOLUME}/zero && head -c 3 {VOLUME}/zero"])
    assert inside.stdout == b"" and b"Permission denied" in inside.stderr
    box.destroy()
