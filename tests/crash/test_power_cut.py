"""The power goes, at any moment and under load: every volume is whole or gone, and holds what was synced.

The state directory is on a scratch disk (`tests.crash.scratch_disk`) whose contents are kept at random moments of a
load (`tests.crash.load`); afterwards each of these is mounted and the service started on it. `--cuts N` takes more.
"""

import os
import random
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from sysproc.linux.loop import LO_FLAGS_AUTOCLEAR, loop_configure
from sysproc.storage.vsf.disk import Part, read_disk
from sysproc_client import Client, Container, Volume
from tests.crash.load import LOG, SMALL, Acknowledged, Load, Written
from tests.crash.scratch_disk import NoSuchDisk, ScratchDisk
from tests.e2e.daemon import RunningDaemon
from tests.waiting import wait_until

# Answers and records between two cuts, at most.
STEPS, RECORDS = 8, 40
SIZES_ARE = 1 << 20
# What looks whether a filesystem is whole, and its exit statuses when it is.
FSCK = {
    "ext4": ((("e2fsck", "-p"), (0, 1)), (("e2fsck", "-fn"), (0,))),
    "btrfs": ((("btrfs", "check", "--readonly"), (0,)),),
}


@dataclass(frozen=True)
class Cut:
    """What the disk held at one moment; what was acknowledged by then, and what could be by its end."""

    image: Path
    before: Acknowledged
    after: Acknowledged
    written: Sequence[Written]


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
            so_far = sum(start.records.values())

            def enough(start: int = start.steps, steps: int = steps, records: int = so_far + records) -> bool:
                now = load.acknowledged()
                return bool(load.failed) or (now.steps >= start + steps and sum(now.records.values()) >= records)

            wait_until(enough, "the load goes on")
            before = load.acknowledged()
            image = disk.cut()
            taken.append(Cut(image, before, load.acknowledged(), load.written))
        assert load.failed == []
    return taken


def check_volumes(found: dict[str, int], cut: Cut) -> None:
    """Sizes of the volumes after recovery: what nothing was asked for is as it was; the rest is one or the other."""
    before, after = cut.before, cut.after
    assert not before.deleted.keys() & found.keys()
    assert found.keys() <= after.sizes.keys() | after.under_way.keys() | after.deleted.keys()
    for name in before.sizes.keys() - after.deleted.keys() - leaving(after):
        assert name in found
    for name, size in found.items():
        known = [whole[name] for whole in (after.sizes, after.under_way, after.deleted) if name in whole]
        assert before.sizes.get(name, 1) <= size <= max(known), (name, size, before, after)
        assert size % SIZES_ARE == 0


def leaving(after: Acknowledged) -> set[str]:
    """What may have been deleted, though nobody was told: something is asked for that does not make it larger."""
    return {name for name, size in after.under_way.items() if after.sizes.get(name) == size}


def check_files(state_dir: Path, expected: int) -> None:
    """Each is whole: its table, its filesystem's size; and fsck has nothing to say once the journal is replayed."""
    files = list((state_dir / "volumes").iterdir())
    assert len(files) == expected
    for file in files:
        with file.open("r+b") as opened:
            (part,) = read_disk(opened.fileno())
            assert part.contents is not None and part.contents.size_bytes in (part.size_bytes, None)
            check_filesystem(opened.fileno(), part, part.contents.kind)


def check_filesystem(fd: int, part: Part, kind: str) -> None:
    """By its exit status: 0 nothing to do, 1 repaired. What is encrypted is looked at by opening it."""
    device_fd, device = loop_configure(fd, offset=part.offset_bytes, size=part.size_bytes, flags=LO_FLAGS_AUTOCLEAR)
    try:
        for command, allowed in FSCK.get(kind, ()):
            done = subprocess.run([*command, device], capture_output=True, text=True, check=False)
            assert done.returncode in allowed, (done.args, done.stdout, done.stderr)
        assert kind in FSCK or kind == "luks"
    finally:
        os.close(device_fd)


def check_records(box: Container, volume: Volume, synced: int, *, secret: str | None, read_only: bool = False) -> None:
    """All that fsync has returned for are there, in order; what was written later may be."""
    with volume.mount(box, "/found", secret=secret, read_only=read_only):
        said = box.run(["sh", "-c", f"ls -l /found >&2; cat /found/{LOG}"])
    lines = said.stdout.split(b"\n")[:-1]
    assert [int(line) for line in lines] == list(range(1, len(lines) + 1)), (volume.name, said)
    assert len(lines) >= synced, (volume.name, said)


def check_written(client: Client, box: Container, cut: Cut) -> None:
    """The volumes that were written to, each opened with its passphrase; and their clones and snapshots."""
    secrets = {one.name: one.secret for one in cut.written}
    there = {one.name: one for one in client.volumes.list()}
    for name, secret in secrets.items():
        check_records(box, there[name], cut.before.records[name], secret=secret)
    for name in cut.after.least.keys() & there.keys():
        source, least = cut.after.least[name]
        check_records(box, there[name], least, secret=secrets[source], read_only=True)


def test_after_a_power_cut_every_volume_is_whole_or_gone_and_holds_what_was_synced(
    disk: ScratchDisk, pytestconfig: pytest.Config
) -> None:
    for cut in cuts_under_load(disk, pytestconfig.getoption("cuts")):
        with disk.as_it_was(cut.image) as state, on(state / "state") as daemon, Client(daemon.endpoint) as client:
            (box,) = client.list()
            assert (box.name, box.state) == ("writer", "stopped")
            sizes = {one.name: one.size for one in client.volumes.list()}
            check_files(daemon.state_dir, len(sizes))
            check_volumes(sizes, cut)
            box.start()
            check_written(client, box, cut)
            client.volumes.create("new", size=SMALL).delete()
