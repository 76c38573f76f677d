"""Volumes that are compressed: erofs and squashfs, made of a tar and read-only; btrfs, as it is written."""

import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from sysproc_client import Client, FailedPrecondition, InvalidArgument, LimitExceeded
from sysproc_client.container import Container
from tests.archives import Archive
from tests.e2e.conftest import Sysproc
from tests.e2e.daemon import RunningDaemon

MIB = 1 << 20
TOOLS = {"erofs": "mkfs.erofs", "squashfs": "mksquashfs"}
OLD_KERNEL = tuple(int(part) for part in os.uname().release.split(".")[:2]) < (6, 2)


def can_mount(kind: str) -> pytest.MarkDecorator:
    lacking = shutil.which(TOOLS[kind]) is None or (kind == "squashfs" and OLD_KERNEL)
    return pytest.mark.skipif(lacking, reason=f"no {TOOLS[kind]}, or a kernel whose {kind} takes no idmap")


KINDS = [
    pytest.param(kind, how, marks=can_mount(kind))
    for kind, how in (
        ("erofs", ""),
        ("erofs", "lz4"),
        ("erofs", "lz4hc:9"),
        ("squashfs", ""),
        ("squashfs", "zstd:19"),
        ("squashfs", "xz"),
        ("squashfs", "lz4hc"),
    )
]
needs_erofs = pytest.mark.skipif(shutil.which("mkfs.erofs") is None, reason="no mkfs.erofs")


def tar() -> io.BytesIO:
    archive = Archive()
    archive.add("text", b"again and again " * 100_000, mode=0o640, uid=7, gid=8, mtime=1_000_000)
    archive.add("d", type=tarfile.DIRTYPE, mode=0o755)
    archive.add("d/link", type=tarfile.SYMTYPE, linkname="../text")
    archive.add("d/hard", type=tarfile.LNKTYPE, linkname="text")
    archive.add("d/null", type=tarfile.CHRTYPE)
    return io.BytesIO(archive.bytes())


def said(box: Container, *command: str) -> str:
    result = box.run(list(command))
    assert result.exit_code == 0, result.stderr
    return result.stdout.decode().strip()


@pytest.mark.parametrize(("kind", "how"), KINDS)
def test_what_is_in_a_tar_is_in_the_volume_and_can_only_be_read(client: Client, kind: str, how: str) -> None:
    box = client.create(size="32M")
    box.start()
    volume = client.volumes.create_from("data", tar(), fs=kind, compress=how, owner=box)
    (filesystem,) = volume.filesystems
    assert filesystem.compression == (how or ("gzip" if kind == "squashfs" else ""))
    assert volume.size <= (3 if filesystem.compression else 5) * MIB
    volume.mount(box, "/data")
    assert said(box, "stat", "-c", "%a %u %g %h %Y %s", "/data/text") == "640 7 8 2 1000000 1600000"
    assert said(box, "cat", "/data/d/link").startswith("again and again")
    assert said(box, "ls", "/data") == "d\ntext" and said(box, "ls", "/data/d") == "hard\nlink"
    assert b"Read-only" in box.run(["touch", "/data/new"]).stderr
    assert [one.read_only for one in volume.refresh().attached_to] == [True]
    client.volumes.unmount(box, "/data")


@needs_erofs
def test_another_container_than_the_owner_gets_no_ids_of_it(client: Client) -> None:
    box = client.create(size="32M", name="below")
    box.start()
    volume = client.volumes.create_from("data", tar())
    volume.mount(box, "/data")
    assert said(box, "stat", "-c", "%u", "/data/text") == "65534"


@needs_erofs
def test_a_read_only_volume_does_not_grow(client: Client) -> None:
    volume = client.volumes.create_from("data", tar())
    with pytest.raises(FailedPrecondition, match="read-only and cannot grow"):
        volume.grow("1G")


@needs_erofs
def test_what_is_more_than_the_owner_may_store_is_refused(daemon: RunningDaemon, client: Client) -> None:
    """Also of what would fit once it is compressed: until then it is on the host's disk as it is."""
    box = client.create(size="32M", storage="36M")
    much = Archive()
    much.add("zeros", bytes(6 * MIB))
    with pytest.raises(LimitExceeded):
        client.volumes.create_from("data", io.BytesIO(much.bytes()), compress="lz4", owner=box)
    assert list((daemon.state_dir / "volumes").iterdir()) == []
    client.volumes.create_from("data", tar(), compress="lz4", owner=box)


@needs_erofs
def test_what_is_no_tar_and_a_compression_that_is_none_are_refused_and_leave_nothing(
    daemon: RunningDaemon, client: Client
) -> None:
    with pytest.raises(InvalidArgument, match="cannot be unpacked"):
        client.volumes.create_from("data", io.BytesIO(b"no tar" * 1000))
    with pytest.raises(InvalidArgument, match="none that erofs has"):
        client.volumes.create_from("data", tar(), compress="xz")
    with pytest.raises(InvalidArgument, match="has 0 to 12"):
        client.volumes.create_from("data", tar(), compress="lz4hc:13")
    with pytest.raises(InvalidArgument, match="ext4 does not compress"):
        client.volumes.create("data", size="16M", compress="zstd")
    with pytest.raises(InvalidArgument, match="made empty"):
        client.volumes.create("data", size="16M", fs="erofs")
    assert client.volumes.list() == [] and list((daemon.state_dir / "volumes").iterdir()) == []


@needs_erofs
def test_a_compression_that_the_tool_does_not_know_is_told_in_its_words(client: Client) -> None:
    """erofs-utils of Debian 12 know neither zstd nor deflate; where they do, there is a volume."""
    known = b"deflate" in subprocess.run(["mkfs.erofs", "--help"], capture_output=True, check=False).stderr
    if known:
        assert client.volumes.create_from("data", tar(), compress="deflate:9").filesystems[0].compression == "deflate:9"
        return
    with pytest.raises(FailedPrecondition, match=r"mkfs\.erofs ended with") as refused:
        client.volumes.create_from("data", tar(), compress="deflate:9")
    assert refused.value.reason == "NOT_PACKED" and client.volumes.list() == []


@needs_erofs
def test_the_command_takes_folders_and_standard_input(sysproc: Sysproc, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    made = sysproc("volume", "create", "one", "--fs", "erofs", "--from", str(tmp_path), "--compress", "lz4hc:9")
    assert made.stdout == b"one\n", made.stderr
    told = sysproc("volume", "create", "two", "--fs", "erofs", "--from", "-", "-o", "json", input=tar().getvalue())
    assert json.loads(told.stdout)["filesystems"][0]["type"] == "erofs"
    assert b"lz4hc:9" in sysproc("volume", "inspect", "one").stdout
    assert (
        b"leave out --size" in sysproc("volume", "create", "x", "--fs", "erofs", "--from", "-", "--size", "1G").stderr
    )
    assert b"--from FOLDER" in sysproc("volume", "create", "x", "--fs", "squashfs").stderr
    assert sysproc("volume", "check", "one").stdout == b"data: clean\n"


@pytest.mark.skipif(shutil.which("mkfs.btrfs") is None, reason="no mkfs.btrfs")
def test_btrfs_compresses_what_is_written(client: Client) -> None:
    box = client.create(size="32M")
    box.start()
    occupied = {}
    for name, how in (("plain", ""), ("small", "zstd:9")):
        volume = client.volumes.create(name, size="256M", fs="btrfs", compress=how, owner=box)
        volume.mount(box, f"/{name}")
        assert ("compress=zstd:9" in said(box, "grep", f"/{name} ", "/proc/mounts")) == bool(how)
        said(box, "sh", "-c", f"yes 'a line that comes again' | head -c 30000000 > /{name}/file; sync")
        occupied[name] = int(said(box, "sh", "-c", f"df -k /{name} | tail -1 | awk '{{print $3}}'"))
    assert occupied["small"] < occupied["plain"] / 3
