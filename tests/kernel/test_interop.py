"""What other tools make of our files: sfdisk, blkid, partx with the kernel's own partitions, systemd-dissect.

What we make of theirs: images by mkfs alone, by sfdisk and mkfs, without a table. Where a tool is missing its tests are
skipped; systemd-dissect is in the virtual machine (package systemd-container).
"""

import json
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sysproc.isolation.launcher_client import Launcher
from sysproc.linux.loop import LO_FLAGS_AUTOCLEAR, loop_configure
from sysproc.storage.state_dir import StateDir
from sysproc.storage.volumes import CREATING, MADE, Filesystem, VolumeRow
from sysproc.storage.vsf.disk import read_disk
from sysproc.storage.vsf.layout import least_disk_bytes
from sysproc.volume_files import VolumeFiles

MIB = 1 << 20
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"


def needs(tool: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed")


def run(*command: str | Path, stdin: str = "") -> str:
    """What a tool says."""
    return subprocess.run(command, input=stdin, check=True, capture_output=True, text=True).stdout


@pytest.fixture
async def ours(tmp_path: Path) -> AsyncIterator[tuple[Path, VolumeRow]]:
    """A volume of two filesystems, made as the service makes it."""
    sizes = {"root": 32 * MIB, "notes": 16 * MIB}
    filesystems = tuple(Filesystem(label, "ext4", size, str(uuid.uuid4())) for label, size in sizes.items())
    row = VolumeRow(
        id=1,
        owner_id=None,
        name="data",
        size_bytes=least_disk_bytes(list(sizes.values())),
        filesystems=filesystems,
        on_destroy="delete",
        overcommit=False,
        state=CREATING,
        grown_from=None,
        created_at=0.0,
        created_revision=1,
        revision=1,
        origin=MADE,
    )
    with tempfile.TemporaryDirectory(prefix="sysproc-test-") as runtime_dir:
        launcher = Launcher(Path(runtime_dir), ())
        await launcher.connect()
        state_dir = StateDir(tmp_path / "state")
        state_dir.make()
        files = VolumeFiles(state_dir, launcher)
        try:
            await files.make(row)
            yield files.path(row), row
        finally:
            await launcher.quit()
            await launcher.close()


@needs("sfdisk")
def test_sfdisk_finds_nothing_wrong_and_the_partitions_as_they_are(ours: tuple[Path, VolumeRow]) -> None:
    path, row = ours
    assert "No errors detected" in run("sfdisk", "--verify", path)
    table = json.loads(run("sfdisk", "--json", path))["partitiontable"]
    assert (table["label"], table["sectorsize"]) == ("gpt", 512)
    assert [(one["name"], one["start"], one["size"]) for one in table["partitions"]] == [
        ("root", 2048, 65536),
        ("notes", 2048 + 65536, 32768),
    ]
    assert table["partitions"][1]["type"] == LINUX
    assert [one.label for one in row.filesystems] == ["root", "notes"]


@needs("blkid")
def test_blkid_knows_table_and_filesystems(ours: tuple[Path, VolumeRow]) -> None:
    path, row = ours
    assert "PTTYPE=gpt" in run("blkid", "-p", "-o", "export", path)
    with path.open("rb") as file:
        parts = read_disk(file.fileno())
    for part, filesystem in zip(parts, row.filesystems, strict=True):
        told = run("blkid", "-p", "-o", "export", "-O", str(part.offset_bytes), path).splitlines()
        assert {f"LABEL={filesystem.label}", f"UUID={filesystem.uuid}", "TYPE=ext4"} <= set(told)


@contextmanager
def looped(path: Path) -> Iterator[str]:
    """A block device of the whole file, without its partitions."""
    with path.open("rb+") as file:
        fd, device = loop_configure(file.fileno(), offset=0, size=0, flags=LO_FLAGS_AUTOCLEAR)
    try:
        yield device
    finally:
        os.close(fd)


@needs("partx")
def test_the_kernel_has_the_partitions_that_partx_adds(ours: tuple[Path, VolumeRow]) -> None:
    path, _ = ours
    with looped(path) as device:
        try:
            run("partx", "--add", device)
            name = Path(device).name
            found = {
                one.name: (int((one / "start").read_text()), int((one / "size").read_text()))
                for one in Path("/sys/block", name).glob(f"{name}p*")
            }
        finally:
            run("partx", "--delete", device)
    assert found == {f"{name}p1": (2048, 65536), f"{name}p2": (2048 + 65536, 32768)}


def scanned(path: Path) -> list[int]:
    """The sizes of the partitions that the kernel finds by itself, in sectors."""
    device = run("losetup", "--find", "--show", "--partscan", path).strip()
    try:
        return sorted(int(size.read_text()) for size in Path("/sys/block").glob(f"{Path(device).name}/loop*p*/size"))
    finally:
        run("losetup", "--detach", device)


@pytest.mark.vm
@needs("losetup")
@needs("sfdisk")
def test_losetup_scans_the_partitions(ours: tuple[Path, VolumeRow], tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.touch()
    os.truncate(theirs, 4 * MIB)
    run("sfdisk", "--quiet", theirs, stdin="label: gpt\nsize=1MiB\n")
    if scanned(theirs) != [2048]:
        pytest.skip("this kernel looks for no GPT by itself (CONFIG_EFI_PARTITION); it does in the VM")
    assert scanned(ours[0]) == [32768, 65536]


@pytest.mark.vm
@needs("busybox")
@needs("systemd-nspawn")
@pytest.mark.skipif(not Path("/run/udev/control").exists(), reason="systemd-nspawn --image wants udev; it is in the VM")
def test_systemd_nspawn_runs_what_is_in_the_root(ours: tuple[Path, VolumeRow], tmp_path: Path) -> None:
    path, _ = ours
    with path.open("rb") as file:
        part = read_disk(file.fileno())[0]
    (tmp_path / "root").mkdir()
    run("mount", "-o", f"loop,offset={part.offset_bytes},sizelimit={part.size_bytes}", path, tmp_path / "root")
    try:
        for directory in ("usr/bin", "etc", "proc", "sys", "dev", "run", "tmp"):
            (tmp_path / "root" / directory).mkdir(parents=True)
        shutil.copy(shutil.which("busybox") or "", tmp_path / "root/usr/bin/busybox")
        (tmp_path / "root/etc/os-release").write_text("ID=ours\n")
    finally:
        run("umount", tmp_path / "root")
    said = run(
        *("systemd-nspawn", "--quiet", "--pipe", "--as-pid2", "--register=no", "--keep-unit", f"--image={path}"),
        *("/usr/bin/busybox", "sed", "s/ID=/of /", "/etc/os-release"),
    )
    assert said == "of ours\n"


@pytest.mark.vm
@needs("systemd-dissect")
def test_systemd_dissect_takes_the_root_for_a_root(ours: tuple[Path, VolumeRow]) -> None:
    path, row = ours
    told = json.loads(run("systemd-dissect", "--json=short", path).splitlines()[-1])
    mounts = {one["designator"]: one for one in told.get("mounts", told) if isinstance(one, dict)}
    assert mounts["root"]["fstype"] == "ext4" and mounts["root"]["partition_label"] == row.filesystems[0].label


THEIRS = {
    "mke2fs alone": None,
    "sfdisk and mke2fs": "label: gpt\nsize=40MiB, type=linux, name=first\nsize=8MiB, type=swap, name=second\n",
    "sfdisk's own places": "label: gpt\nfirst-lba: 34\nstart=40, size=81920, type=linux, name=first\n",
    "a table of 16 entries": "label: gpt\ntable-length: 16\nsize=40MiB, type=linux, name=first\n",
}


@needs("sfdisk")
@pytest.mark.parametrize("how", THEIRS)
def test_what_others_have_made_is_found_in_it(how: str, tmp_path: Path) -> None:
    path, table = tmp_path / "theirs", THEIRS[how]
    path.touch()
    os.truncate(path, 64 * MIB)
    offset = 0
    if table is not None:
        run("sfdisk", "--quiet", path, stdin=table)
        offset = json.loads(run("sfdisk", "--json", path))["partitiontable"]["partitions"][0]["start"] * 512
    run("mke2fs", "-q", "-F", "-t", "ext4", "-L", "theirs", "-E", f"offset={offset}", path, "40M")
    with path.open("rb") as file:
        first, *others = read_disk(file.fileno())
    assert first.offset_bytes == offset and first.label == ("first" if table else "")
    assert first.contents is not None and (first.contents.kind, first.contents.label) == ("ext4", "theirs")
    assert all(one.contents is None for one in others)
