"""Foreign files as disks: what mkfs, sfdisk and cryptsetup make is found as other tools find it; the rest is refused.

The tools work on plain files: no root is needed. Damaged tables are in `tests/unit/storage/test_gpt.py`.
"""

import os
import random
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from sysproc.errors import InvalidArgument
from sysproc.sparse import copy_data
from sysproc.storage.vsf.clone import fresh_vsf
from sysproc.storage.vsf.disk import Part, read_disk
from sysproc.storage.vsf.layout import Wanted, plan
from sysproc.storage.vsf.probe import Contents, probe

UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
SIZE = 320 << 20
MAKERS = {
    "ext4": ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "a label", "-U", UUID],
    "ext3": ["mke2fs", "-q", "-F", "-t", "ext3", "-L", "a label", "-U", UUID],
    "ext2": ["mke2fs", "-q", "-F", "-t", "ext2", "-L", "a label", "-U", UUID],
    "btrfs": ["mkfs.btrfs", "-q", "-f", "-L", "a label", "-U", UUID],
    "xfs": ["mkfs.xfs", "-q", "-f", "-L", "a label", "-m", f"uuid={UUID}"],
    "luks": ["cryptsetup", "luksFormat", "-q", "--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000", "--label=a label"],
    "erofs": ["mkfs.erofs", "--quiet", "-U", UUID],
    "squashfs": ["mksquashfs"],
}


def made(kind: str, path: Path) -> Path:
    """A file with this filesystem and nothing else, made by the tool for it."""
    command = MAKERS[kind]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    if kind not in ("erofs", "squashfs"):
        path.touch()
        os.truncate(path, SIZE)
    content = path.parent / "content"
    content.mkdir(exist_ok=True)
    (content / "file").write_bytes(b"hello" * 1000)
    ends: dict[str, tuple[list[str | Path], bytes]] = {
        "luks": ([f"--uuid={UUID}", path, "-"], b"passphrase"),
        "erofs": ([path, content], b""),
        "squashfs": ([content, path, "-quiet", "-no-progress"], b""),
    }
    end, said = ends.get(kind, ([path], b""))
    subprocess.run([*command, *end], input=said, check=True, capture_output=True)
    return path


def parts_of(path: Path) -> tuple[Part, ...]:
    with path.open("rb") as file:
        return read_disk(file.fileno())


def told_by_blkid(path: Path, offset: int = 0) -> dict[str, str]:
    """`blkid -p` of these bytes: TYPE, LABEL, UUID."""
    if shutil.which("blkid") is None:
        pytest.skip("blkid is not installed")
    command: list[str | Path] = ["blkid", "-p", "-o", "export", "-O", str(offset), path]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(line.replace("\\ ", " ").split("=", 1) for line in told.splitlines() if "=" in line)


@pytest.mark.parametrize("kind", MAKERS)
def test_one_filesystem_without_a_table_is_found_as_blkid_finds_it(kind: str, tmp_path: Path) -> None:
    path = made(kind, tmp_path / "alone")
    (part,) = parts_of(path)
    assert (part.label, part.offset_bytes, part.size_bytes) == ("", 0, path.stat().st_size)
    assert part.contents is not None
    told = told_by_blkid(path)
    assert part.contents.kind == told["TYPE"].replace("crypto_LUKS", "luks")
    assert (part.contents.label, part.contents.uuid) == (told.get("LABEL", ""), told.get("UUID", ""))


@pytest.mark.parametrize("kind", ["ext4", "btrfs", "xfs", "erofs", "squashfs", "luks"])
def test_it_is_found_in_a_partition_of_ours_where_other_tools_find_it(kind: str, tmp_path: Path) -> None:
    alone, path = made(kind, tmp_path / "alone"), tmp_path / "disk"
    gpt = plan([Wanted("first", 3 << 20), Wanted("second", alone.stat().st_size)], (8 << 20) + SIZE)
    with path.open("wb+") as file:
        fresh_vsf(file.fileno(), gpt)
        with alone.open("rb") as source:
            copy_data(source.fileno(), file.fileno(), gpt.partitions[1].offset_bytes)
    first, second = parts_of(path)
    assert first.contents is None
    assert second.contents is not None and second.contents.kind == kind
    assert told_by_blkid(path, second.offset_bytes)["TYPE"].replace("crypto_LUKS", "luks") == kind
    shown: list[str | Path] = ["partx", "--show", "--bytes", "--noheadings", "--output", "NAME,START,SIZE", path]
    if shutil.which("partx") is None:
        pytest.skip("partx is not installed")
    listed = subprocess.run(shown, capture_output=True, text=True, check=True).stdout.split()
    assert listed == [
        *("first", str(first.offset_bytes // 512), str(first.size_bytes)),
        *("second", str(second.offset_bytes // 512), str(second.size_bytes)),
    ]


@pytest.mark.parametrize("content", [b"", b"no disk", bytes(1 << 20), b"\xff" * (1 << 20)])
def test_what_is_no_disk_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InvalidArgument, match="neither a disk nor a filesystem"):
        parts_of(tmp_path / "file")


@pytest.mark.skipif(shutil.which("sfdisk") is None, reason="sfdisk (package fdisk) is not installed")
def test_the_old_kind_of_table_is_refused_for_that_reason(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.touch()
    os.truncate(path, 8 << 20)
    subprocess.run(["sfdisk", "-q", path], input=b"label: dos\nsize=2MiB\n", check=True, capture_output=True)
    with pytest.raises(InvalidArgument, match="MBR partition table"):
        parts_of(path)


def test_what_claims_to_be_two_filesystems_is_refused(tmp_path: Path) -> None:
    path = made("ext4", tmp_path / "file")
    with path.open("rb+") as file:
        file.write(b"XFSB")
    with pytest.raises(InvalidArgument, match="ext4 and xfs at once"):
        parts_of(path)


def test_a_filesystem_that_claims_more_than_its_place_is_refused(tmp_path: Path) -> None:
    path = made("ext4", tmp_path / "file")
    os.truncate(path, SIZE - 4096)
    with pytest.raises(InvalidArgument, match="claims"):
        parts_of(path)


@pytest.mark.parametrize("kind", ["ext4", "btrfs", "xfs", "erofs", "squashfs", "luks"])
def test_two_thousand_mutated_superblocks_are_read_or_refused(kind: str, tmp_path: Path) -> None:
    path = made(kind, tmp_path / "file")
    (good,) = parts_of(path)
    chance, outcomes = random.Random(11), Counter[str]()
    start = 65536 if kind == "btrfs" else 0
    with path.open("rb+") as file:
        fd = file.fileno()
        block = os.pread(fd, 2048, start)
        for _ in range(2_000):
            bad = bytearray(block)
            for _ in range(chance.randint(1, 24)):
                bad[chance.randrange(len(bad))] = chance.choice((0, 0xFF, chance.randrange(256)))
            os.pwrite(fd, bad, start)
            try:
                found = probe(fd, 0, good.size_bytes)
            except InvalidArgument:
                outcomes["refused"] += 1
                continue
            outcomes["nothing" if found is None else found.kind] += 1
            assert found is None or found.size_bytes is None or found.size_bytes <= good.size_bytes
    assert outcomes[kind] > 100
    assert isinstance(good.contents, Contents)
