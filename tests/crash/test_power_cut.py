"""The power goes, at any moment and under load: every volume is whole or gone, and holds what was synced.

The state directory is on a scratch disk (`tests.crash.scratch_disk`) whose contents are kept at random moments of a
load (`tests.crash.load`); afterwards each of these is mounted and the service started on it. `--cuts N` takes more.
"""

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from sysproc.linux.loop import LO_FLAGS_AUTOCLEAR, loop_configure
from sysproc.storage.vsf.disk import read_disk
from sysproc_client import Client, Container
from tests.crash.load import LARGE, LOG, PLACE, SMALL, Acknowledged, Load
from tests.crash.scratch_disk import NoSuchDisk, ScratchDisk
from tests.e2e.daemon import RunningDaemon
from tests.waiting import wait_until

# Answers and records between two cuts, at most.
STEPS, RECORDS = 8, 40


@dataclass(frozen=True)
class Cut:
    """What the disk held at one moment; what was acknowledged by then, and what could be by its end."""

    image: Path
    before: Acknowledged
    after: Acknowledged


@pytest.fixture
def disk() -> Iterator[ScratchDisk]:
    with ExitStack() as stack:
        directory = stack.enter_context(TemporaryDirectory(prefix="sysproc-test-"))
        try:
            made = stack.enter_context(ScratchDisk(Path(directory)))
        except NoSuchDisk as why:
            pytest.skip(str(why))
        yield made


def on(state_dir: Path) -> RunningDaemon:
    """A daemon with this state directory, not started."""
    daemon = RunningDaemon()
    daemon.state_dir = state_dir
    return daemon


def cuts_under_load(disk: ScratchDisk, number: int) -> list[Cut]:
    """Let the load go on for a random while each time; the daemon and all containers are ended afterwards."""
    taken = []
    with on(disk.mounted / "state") as daemon, Load(daemon.endpoint) as load:
        for _ in range(number):
            start, steps, records = load.acknowledged(), random.randint(0, STEPS), random.randint(1, RECORDS)

            def enough(start: Acknowledged = start, steps: int = steps, records: int = records) -> bool:
                now = load.acknowledged()
                return bool(load.failed) or (
                    now.steps >= start.steps + steps and now.records >= start.records + records
                )

            wait_until(enough, "the load goes on")
            before = load.acknowledged()
            image = disk.cut()
            taken.append(Cut(image, before, load.acknowledged()))
        assert load.failed == []
    return taken


def check_volumes(found: dict[str, int], cut: Cut) -> None:
    """Sizes of the volumes after recovery: what nothing was asked for is as it was; the rest is one or the other."""
    before, after = cut.before, cut.after
    assert not before.deleted & found.keys()
    assert found.keys() <= after.sizes.keys() | after.under_way | after.deleted
    assert set(found.values()) <= {SMALL, LARGE}
    changing = before.under_way | after.under_way
    for name, size in before.sizes.items():
        if name not in changing and after.sizes.get(name) == size:
            assert found[name] == size
        elif name not in after.deleted | after.under_way:
            assert name in found


def check_files(state_dir: Path, expected: int) -> None:
    """Each is whole: its table, its filesystem's size; and fsck has nothing to say once the journal is replayed."""
    files = list((state_dir / "volumes").iterdir())
    assert len(files) == expected
    for file in files:
        with file.open("r+b") as opened:
            (part,) = read_disk(opened.fileno())
            assert part.contents is not None and part.contents.size_bytes == part.size_bytes
            device_fd, device = loop_configure(
                opened.fileno(), offset=part.offset_bytes, size=part.size_bytes, flags=LO_FLAGS_AUTOCLEAR
            )
        try:
            fsck("-p", device, allowed=(0, 1))
            fsck("-fn", device, allowed=(0,))
        finally:
            os.close(device_fd)


def fsck(how: str, device: str, *, allowed: tuple[int, ...]) -> None:
    """By its exit status: 0 nothing to do, 1 repaired. (An offset in a file it forgets on the way.)"""
    done = subprocess.run(["e2fsck", how, device], capture_output=True, text=True, check=False)
    assert done.returncode in allowed, (done.args, done.stdout, done.stderr)


def check_records(client: Client, box: Container, synced: int) -> None:
    """All that fsync has returned for are there, in order; what was written later may be."""
    box.start()
    client.volumes.get("log").mount(box, PLACE)
    said = box.run(["sh", "-c", f"ls -l {PLACE} >&2; cat {PLACE}/{LOG}"])
    lines = said.stdout.split(b"\n")[:-1]
    assert [int(line) for line in lines[:synced]] == list(range(1, synced + 1)), said


def test_after_a_power_cut_every_volume_is_whole_or_gone_and_holds_what_was_synced(
    disk: ScratchDisk, pytestconfig: pytest.Config
) -> None:
    for cut in cuts_under_load(disk, pytestconfig.getoption("cuts")):
        with disk.as_it_was(cut.image) as state, on(state / "state") as daemon, Client(daemon.endpoint) as client:
            (box,) = client.list()
            assert (box.name, box.state) == ("writer", "stopped")
            sizes = {one.name: one.size for one in client.volumes.list()}
            check_files(daemon.state_dir, len(sizes))
            assert sizes.pop("log") == 64 << 20
            check_volumes(sizes, cut)
            check_records(client, box, cut.before.records)
            client.volumes.create("new", size=SMALL).delete()
