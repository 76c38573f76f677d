"""`volume check` of encrypted volumes: with the secret, of what is decrypted; nothing of that is in any file.

The damage is done by debugfs to what is decrypted, as a faulty program of the host would. What is not encrypted is in
`tests.e2e.test_volume_checks`.
"""

import io
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from sysproc.encrypted_files import areas
from sysproc.storage.decrypted.sectors import DecryptedSectors
from sysproc.storage.luks.volume import open_volume, unlock
from sysproc.storage.volumes import FILESYSTEMS
from sysproc_client import Client, Container, FailedPrecondition, PermissionDenied, Volume
from tests.e2e.conftest import Sysproc
from tests.e2e.daemon import RunningDaemon
from tests.e2e.encrypted import SECRET, needs_fuse, the_file, volume_processes
from tests.e2e.inside import says

MIB = 1 << 20
TOOLS = {"btrfs": ("btrfs", "160M"), "xfs": ("xfs_repair", "352M")}
pytestmark = needs_fuse


def damage(daemon: RunningDaemon, encrypt: str, area: int, offset: int, plain: Path) -> None:
    """Change what is decrypted by debugfs, and write it back. offset: of the filesystem in the area."""
    with the_file(daemon).open("rb+") as file:
        region = areas(file.fileno(), encrypt)[area]
        header = open_volume(region)
        with unlock(region, header, memoryview(SECRET.encode())).key as key:
            sectors = DecryptedSectors(region, header.metadata.segment, key.view)
            buffer = memoryview(bytearray(MIB + 2 * sectors.sector_size))
            before = [bytes(sectors.read_into(buffer, at, MIB)) for at in range(0, sectors.size, MIB)]
            plain.write_bytes(b"".join(before))
            for request in ("mkdir lost", "clri <2>"):
                command = ["debugfs", "-w", "-R", request, f"{plain}?offset={offset}"]
                subprocess.run(command, check=True, capture_output=True)
            after = plain.read_bytes()
            for number, block in enumerate(before):
                now = after[number * MIB : (number + 1) * MIB]
                if now != block:
                    sectors.write(memoryview(bytearray(now)), number * MIB)


def two(client: Client, encrypt: str) -> Volume:
    """A volume with two filesystems."""
    parts = [("first", "ext4", "28M"), ("second", "ext4", "28M")]
    return client.volumes.create("data", filesystems=parts, encrypt=encrypt, secret=SECRET)


@pytest.mark.parametrize("encrypt", ["fs", "whole"])
def test_it_is_checked_with_its_secret_and_only_so(
    client: Client, daemon: RunningDaemon, box: Container, encrypt: str
) -> None:
    data = client.volumes.create("data", size="48M", encrypt=encrypt, secret=SECRET)
    before = the_file(daemon).read_bytes()
    with pytest.raises(FailedPrecondition) as locked:
        list(data.check())
    assert locked.value.reason == "VOLUME_LOCKED"
    with pytest.raises(PermissionDenied) as wrong:
        list(data.check(secret="wrong"))
    assert wrong.value.reason == "WRONG_SECRET"
    (found,) = data.check(secret=SECRET)
    assert (found.filesystem, found.result, found.is_whole) == ("data", "clean", True)
    assert the_file(daemon).read_bytes() == before
    assert not data.refresh().unlocked and not volume_processes(daemon)
    data.mount(box, "/data", secret=SECRET)
    with pytest.raises(FailedPrecondition, match="in use"):
        list(data.check(secret=SECRET))


@pytest.mark.parametrize(("encrypt", "area", "offset"), [("fs", 1, 0), ("whole", 0, 29 * MIB)])
def test_damage_is_found_and_repaired_with_the_secret(
    client: Client, daemon: RunningDaemon, box: Container, tmp_path: Path, encrypt: str, area: int, offset: int
) -> None:
    data = two(client, encrypt)
    damage(daemon, {"fs": FILESYSTEMS}.get(encrypt, encrypt), area, offset, tmp_path / "plain")
    before = the_file(daemon).read_bytes()
    found = list(data.check(secret=SECRET))
    assert [one.result for one in found] == ["clean", "damaged"] and "Root inode" in found[1].output
    assert the_file(daemon).read_bytes() == before
    repaired = {one.filesystem: one.result for one in data.check(repair=True, secret=SECRET)}
    assert repaired == {"first": "clean", "second": "repaired"}
    assert [one.result for one in data.check(secret=SECRET)] == ["clean", "clean"]
    data.mount(box, "/data", filesystem="second", secret=SECRET)
    says(box, "touch /data/file; ls /data")


def test_what_a_crash_has_left_in_the_journal_is_no_damage(
    client: Client, daemon: RunningDaemon, box: Container
) -> None:
    data = client.volumes.create("data", size="48M", encrypt="whole", secret=SECRET)
    data.mount(box, "/data", secret=SECRET)
    says(box, "echo text >/data/file; sync")
    cut = the_file(daemon).with_suffix(".cut")
    shutil.copyfile(the_file(daemon), cut)
    data.lock(force=True)
    cut.rename(next(path for path in (daemon.state_dir / "volumes").iterdir() if path != cut))
    before = the_file(daemon).read_bytes()
    assert [one.result for one in data.check(secret=SECRET)] == ["clean"]
    assert the_file(daemon).read_bytes() == before


@pytest.mark.parametrize("kind", TOOLS)
def test_others_than_ext4_are_checked_as_well(client: Client, kind: str) -> None:
    tool, size = TOOLS[kind]
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    data = client.volumes.create("data", size=size, fs=kind, encrypt="fs", secret=SECRET)
    assert [one.result for one in data.check(secret=SECRET)] == ["clean"]


def test_what_was_imported_is_checked_before_it_was_ever_mounted(client: Client) -> None:
    image = io.BytesIO()
    sent = two(client, "whole")
    sent.export_to(image)
    sent.delete()
    image.seek(0)
    got = client.volumes.import_from("got", image, trusted=True)
    assert [(one.filesystem, one.result) for one in got.check(secret=SECRET)] == [
        ("first", "clean"),
        ("second", "clean"),
    ]


def test_the_command_takes_the_secret(client: Client, daemon: RunningDaemon, sysproc: Sysproc, tmp_path: Path) -> None:
    client.volumes.create("data", size="48M", encrypt="fs", secret=SECRET)
    file = tmp_path / "passphrase"
    file.write_text(f"{SECRET}\n")
    assert b"encrypted, and locked" in sysproc("volume", "check", "data").stderr
    checked = ("volume", "check", "data", "--passphrase-file", str(file))
    assert sysproc(*checked).stdout == b"data: clean\n"
    (found,) = json.loads(sysproc(*checked, "-o", "json").stdout)
    assert (found["filesystem"], found["result"]) == ("data", "clean")
    damage(daemon, FILESYSTEMS, 0, 0, tmp_path / "plain")
    told = sysproc("volume", "check", "data", "--key-file", "-", input=SECRET.encode())
    assert told.returncode == 1 and told.stdout.startswith(b"data: damaged\n    ")
    assert sysproc(*checked, "--repair").stdout == b"data: repaired\n"
    assert os.listdir(daemon.state_dir / "volumes") == [the_file(daemon).name]
