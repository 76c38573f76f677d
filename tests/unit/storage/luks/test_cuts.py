"""Power cuts in the middle of a change of keys: whichever of the writes were lost or torn, the volume opens.

A cut keeps what was synced, and any part of any of the writes since.
"""

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from sysproc.storage.luks.refusals import WrongKey
from sysproc.storage.luks.region import Region
from sysproc.storage.luks.volume import add_key, change_key, open_volume, remove_key
from tests.unit.storage.luks.volumes import CHEAP, SIZE, opens, region, volume

FIRST, SECOND = memoryview(b"first"), memoryview(b"second")
Write = tuple[int, bytes]
Change = Callable[[Region], object]


@dataclass(frozen=True)
class Recorded(Region):
    """A region that tells what was written between any two syncs."""

    epochs: list[list[Write]] = field(default_factory=lambda: [[]])

    def write(self, at: int, data: bytes | memoryview) -> None:
        super().write(at, data)
        self.epochs[-1].append((at, bytes(data)))

    def sync(self) -> None:
        super().sync()
        self.epochs.append([])


def cuts(epochs: list[list[Write]], rng: random.Random) -> Iterator[list[Write]]:
    """For each moment all that was synced, and of what was not each write not at all, torn, or whole."""
    done: list[Write] = []
    for epoch in epochs:
        for _ in range(6):
            yield done + [(at, data[: torn(len(data), rng)]) for at, data in epoch]
        yield done + [(at, torn_in_sectors(data, rng)) for at, data in epoch if len(data) <= 16384]
        done = done + epoch
    yield done


def torn(length: int, rng: random.Random) -> int:
    return rng.choice((0, length, rng.randrange(length), rng.randrange(length) // 512 * 512))


def torn_in_sectors(data: bytes, rng: random.Random) -> bytes:
    """Any of its sectors, the others garbage."""
    sectors = [data[at : at + 512] for at in range(0, len(data), 512)]
    return b"".join(sector if rng.random() < 0.5 else rng.randbytes(len(sector)) for sector in sectors)


def add(made: Region) -> object:
    return add_key(made, FIRST, SECOND, cost=CHEAP)


def change(made: Region) -> object:
    return change_key(made, FIRST, SECOND, cost=CHEAP)


def remove(made: Region) -> None:
    remove_key(made, 0)


def opening(made: Region) -> set[bytes]:
    """Which of the two secrets open it."""
    found = set()
    for secret in (b"first", b"second"):
        try:
            opens(made, secret)
        except WrongKey:
            continue
        found.add(secret)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prepare", "act", "before", "after"),
    [
        (None, add, {b"first"}, {b"first", b"second"}),
        (None, change, {b"first"}, {b"second"}),
        (add, remove, {b"first", b"second"}, {b"second"}),
    ],
)
def test_a_volume_opens_after_any_cut(
    prepare: Change | None, act: Change, before: set[bytes], after: set[bytes]
) -> None:
    with volume() as made:
        if prepare:
            prepare(made)
        image = os.pread(made.fd, SIZE, 0)
        recorded = Recorded(made.fd, 0, SIZE)
        act(recorded)
    assert len(recorded.epochs) > 2
    kept = before & after
    for writes in cuts(recorded.epochs, random.Random(7)):
        with region() as cut:
            cut.write(0, image)
            for at, data in writes:
                cut.write(at, data)
            found = opening(cut)
            assert found and found <= before | after and found >= kept
            goes_on_after(cut, min(found))


def goes_on_after(cut: Region, secret: bytes) -> None:
    """Keys can be changed after it as before, and nothing of removed keys stays."""
    add_key(cut, memoryview(secret), memoryview(b"third"), cost=CHEAP)
    header = open_volume(cut)
    assert header.stale is None and opens(cut, b"third") == opens(cut, secret)
    last = max(area.end for area in header.metadata.areas)
    assert not cut.read(last, header.metadata.keyslots_end - last).strip(b"\0")


def test_the_material_of_a_removed_key_is_there_until_no_copy_of_the_header_names_it() -> None:
    with volume() as made:
        add(made)
        recorded = Recorded(made.fd, 0, SIZE)
        remove(recorded)
    places = [[at for at, _ in epoch] for epoch in recorded.epochs]
    assert places[:2] == [[0], [16384]] and min(places[2]) >= 32768
