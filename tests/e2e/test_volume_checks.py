"""`volume check`: what is whole is said to be, what is damaged is found, and repaired in a copy; nothing else happens.

The damage is done by debugfs on the file of a volume, as the disk below would.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from sysproc_client import Client, FailedPrecondition
from tests.e2e.conftest import Sysproc
from tests.e2e.daemon import RunningDaemon

OFFSET = 1 << 20
TOOLS = {"ext4": "e2fsck", "btrfs": "btrfs", "xfs": "xfs_repair"}


def file_of(daemon: RunningDaemon) -> Path:
    (file,) = (daemon.state_dir / "volumes").iterdir()
    return file


def damage(daemon: RunningDaemon, *requests: str) -> None:
    """Change something by debugfs."""
    for request in requests:
        command = ["debugfs", "-w", "-R", request, f"{file_of(daemon)}?offset={OFFSET}"]
        subprocess.run(command, check=True, capture_output=True)


@pytest.mark.parametrize("kind", TOOLS)
def test_what_was_just_made_is_clean(client: Client, kind: str) -> None:
    if shutil.which(TOOLS[kind]) is None:
        pytest.skip(f"{TOOLS[kind]} is not installed")
    volume = client.volumes.create("data", size="400M", fs=kind)
    (found,) = volume.check()
    assert (found.filesystem, found.result, found.is_whole) == ("data", "clean", True)


def test_damage_is_found_and_stays_until_it_is_repaired(daemon: RunningDaemon, client: Client) -> None:
    volume = client.volumes.create("data", filesystems=[("first", "ext4", "16M"), ("second", "ext4", "16M")])
    damage(daemon, "mkdir lost", "clri <2>")
    before = file_of(daemon).read_bytes()
    found = list(volume.check())
    assert [one.result for one in found] == ["damaged", "clean"] and "Root inode" in found[0].output
    assert file_of(daemon).read_bytes() == before
    repaired = {one.filesystem: one.result for one in volume.check(repair=True)}
    assert repaired == {"first": "repaired", "second": "clean"}
    assert [one.result for one in volume.check()] == ["clean", "clean"]
    assert [path.name for path in (daemon.state_dir / "volumes").iterdir()] == [file_of(daemon).name]


def test_a_repaired_volume_can_be_mounted(daemon: RunningDaemon, client: Client) -> None:
    box = client.create(size="32M")
    volume = client.volumes.create("data", size="16M", owner=box)
    damage(daemon, "mkdir lost", "clri <2>")
    list(volume.check(repair=True))
    box.start()
    volume.mount(box, "/data")
    assert box.run(["ls", "/data"]).exit_code == 0


def test_a_volume_in_use_is_not_checked(client: Client) -> None:
    box = client.create(size="32M")
    volume = client.volumes.create("data", size="16M", owner=box)
    box.start()
    volume.mount(box, "/data")
    with pytest.raises(FailedPrecondition, match="in use"):
        list(volume.check())


def test_what_a_crash_has_left_in_the_journal_is_no_damage(daemon: RunningDaemon, client: Client) -> None:
    box = client.create(size="32M")
    volume = client.volumes.create("data", size="16M", owner=box)
    box.start()
    volume.mount(box, "/data")
    box.run(["sh", "-c", "echo text > /data/file; sync"])
    cut = file_of(daemon).with_suffix(".cut")
    shutil.copyfile(file_of(daemon), cut)
    client.volumes.unmount(box, "/data")
    cut.rename(next(path for path in (daemon.state_dir / "volumes").iterdir() if path != cut))
    with file_of(daemon).open("rb") as file:
        assert os.pread(file.fileno(), 1, OFFSET + 1024 + 0x60)[0] & 4, "the journal is empty"
    assert [one.result for one in volume.check()] == ["clean"]


def test_the_command_says_so_in_words_and_status(daemon: RunningDaemon, client: Client, sysproc: Sysproc) -> None:
    client.volumes.create("data", size="16M")
    assert sysproc("volume", "check", "data").stdout == b"data: clean\n"
    damage(daemon, "mkdir lost", "clri <2>")
    told = sysproc("volume", "check", "data")
    assert told.returncode == 1 and told.stdout.startswith(b"data: damaged\n    ")
    assert sysproc("volume", "check", "data", "--repair").stdout == b"data: repaired\n"
    (found,) = json.loads(sysproc("volume", "check", "data", "-o", "json").stdout)
    assert (found["filesystem"], found["result"]) == ("data", "clean")
