"""Disk images of other tools that the host vouches for: every filesystem, without a table and with one, is mounted as
it came, and what is in it is read in a container; what can be written is written.

What is copied instead, without anybody who vouches, is in `tests.e2e.test_volume_imports`; which partitions are found
in a file, in `tests/kernel/test_interop.py`.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from sysproc_client import Client, Container, Volume
from tests.e2e.conftest import Sysproc
from tests.e2e.inside import says
from tests.waiting import wait_until

MIB = 2**20
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
# Before 6.2, none of squashfs is mounted with ids of its own.
OLD_KERNEL = tuple(int(part) for part in os.uname().release.split(".")[:2]) < (6, 2)
Make = Callable[[Path, Path], None]


def run(*command: str | Path, stdin: str = "") -> str:
    """What a tool says."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, env={"PATH": PATH})
    assert done.returncode == 0, done.stderr
    return done.stdout


def made_empty(file: Path, size: int) -> Path:
    with file.open("wb") as made:
        made.truncate(size)
    return file


def xfs(tree: Path, file: Path) -> None:
    """Its files by a prototype (mkfs.xfs(8), -p), which only has what is named in it."""
    prototype = tree.with_name("prototype")
    described = ["/", "0 0", "d--755 0 0", f"file ---644 0 0 {tree / 'file'}", "d d--755 0 0"]
    prototype.write_text("\n".join([*described, f"large ---600 7 8 {tree / 'd/large'}", "$", "$"]) + "\n")
    run("mkfs.xfs", "-q", "-L", "theirs", "-p", prototype, made_empty(file, 320 * MIB))


def btrfs(tree: Path, file: Path) -> None:
    run("mkfs.btrfs", "-q", "-L", "theirs", "--rootdir", tree, made_empty(file, 128 * MIB))


def erofs(tree: Path, file: Path) -> None:
    run("mkfs.erofs", "-zlz4", file, tree)


def squashfs(tree: Path, file: Path) -> None:
    run("mksquashfs", tree, file, "-quiet", "-no-progress", "-comp", "zstd")


MAKE: dict[str, tuple[str, Make]] = {
    "xfs": ("mkfs.xfs", xfs),
    "btrfs": ("mkfs.btrfs", btrfs),
    "erofs": ("mkfs.erofs", erofs),
    "squashfs": ("mksquashfs", squashfs),
}
WRITABLE = ("xfs", "btrfs")


def in_a_partition(image: Path, file: Path) -> None:
    """The image as the second partition of a table of sfdisk's; the first one has nothing in it."""
    size = -(-image.stat().st_size // MIB)
    table = f"label: gpt\nsize=4MiB, type=swap, name=nothing\nsize={size}MiB, type=linux, name=second\n"
    run("sfdisk", "--quiet", made_empty(file, (size + 8) * MIB), stdin=table)
    start = json.loads(run("sfdisk", "--json", file))["partitiontable"]["partitions"][1]["start"]
    run("dd", "bs=1M", "oflag=seek_bytes", "conv=notrunc,sparse", f"seek={start * 512}", f"if={image}", f"of={file}")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What goes into each."""
    top = tmp_path / "tree"
    (top / "d").mkdir(parents=True)
    (top / "file").write_text("from elsewhere\n")
    (top / "d/large").write_bytes(os.urandom(3 * MIB))
    (top / "d/large").chmod(0o600)
    os.chown(top / "d/large", 7, 8)
    return top


def theirs(kind: str, how: str, tree: Path, directory: Path) -> Path:
    """An image of other tools, raw or with a table."""
    tool, make = MAKE[kind]
    needed = (tool,) if how == "raw" else (tool, "sfdisk")
    if missing := [name for name in needed if shutil.which(name, path=PATH) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    raw, disk = directory / "raw", directory / "disk"
    make(tree, raw)
    if how == "raw":
        return raw
    in_a_partition(raw, disk)
    return disk


def is_as_it_was(box: Container, tree: Path) -> None:
    """What the tree has is at /data, with its ids."""
    assert says(box, "cat /data/file") == b"from elsewhere\n"
    assert says(box, "stat -c '%a %u %g %s' /data/d/large") == b"600 7 8 3145728\n"
    digest = run("md5sum", tree / "d/large").split()[0]
    assert says(box, "md5sum /data/d/large").split()[0].decode() == digest


def is_free(volume: Volume) -> bool:
    return not volume.refresh().attached_to


@pytest.mark.parametrize("how", ["raw", "gpt"])
@pytest.mark.parametrize("kind", MAKE)
def test_it_is_mounted_as_it_came(
    client: Client, sysproc: Sysproc, tree: Path, tmp_path: Path, kind: str, how: str
) -> None:
    if kind == "squashfs" and OLD_KERNEL:
        pytest.skip("a kernel whose squashfs takes no idmap (before 6.2)")
    box, file = client.create(name="box", size="32M", storage="1G"), theirs(kind, how, tree, tmp_path)
    done = sysproc("volume", "import", "theirs", str(file), "--trust", "--owner", "box")
    assert done.returncode == 0, done.stderr
    data = client.volumes.get("theirs", owner=box)
    assert data.origin == "trusted"
    label = data.filesystems[-1].label
    assert how == "raw" or [one.label for one in data.filesystems] == ["nothing", "second"]
    data.mount(box, "/data", filesystem=label)
    assert f" /data {kind} " in says(box, "cat /proc/mounts").decode()
    is_as_it_was(box, tree)
    if kind not in WRITABLE:
        assert b"Read-only" in box.run(["touch", "/data/new"]).stderr
        return
    says(box, "echo more >/data/d/new; sync")
    client.volumes.unmount(box, "/data")
    wait_until(partial(is_free, data), "nothing holds it")
    if how == "raw":  # what nothing is in cannot be checked
        assert [one.result for one in data.check()] == ["clean"]
    data.mount(box, "/data", filesystem=label, read_only=True)
    assert says(box, "cat /data/d/new") == b"more\n"


DEFINITIONS = {
    "10-root.conf": "Type=root\nLabel=system\nFormat=ext4\nCopyFiles={tree}:/\nSizeMinBytes=24M\nSizeMaxBytes=24M\n",
    "20-home.conf": "Type=home\nLabel=home\nFormat=ext4\nCopyFiles={tree}/d:/d\nSizeMinBytes=24M\nSizeMaxBytes=24M\n",
}


@pytest.mark.skipif(shutil.which("systemd-repart") is None, reason="systemd-repart is not installed (package systemd)")
@pytest.mark.parametrize("trusted", [True, False], ids=["trusted", "copied"])
def test_an_image_of_systemd_repart_has_what_it_put_into_it(
    client: Client, box: Container, tree: Path, tmp_path: Path, trusted: bool
) -> None:
    definitions = tmp_path / "repart.d"
    definitions.mkdir()
    for name, text in DEFINITIONS.items():
        (definitions / name).write_text("[Partition]\n" + text.format(tree=tree))
    options = ("--empty=create", "--size=64M", "--dry-run=no", "--pretty=no", "--seed=random")
    run("systemd-repart", *options, f"--definitions={definitions}", tmp_path / "image")
    data = client.volumes.import_from("theirs", tmp_path / "image", trusted=trusted)
    assert [one.label for one in data.filesystems] == ["system", "home"]
    for label, path in (("system", "/data"), ("home", "/home")):
        data.mount(box, path, filesystem=label)
    assert says(box, "cat /data/file") == b"from elsewhere\n"
    assert says(box, "md5sum </home/d/large") == says(box, "md5sum </data/d/large")
    says(box, "echo more >/home/new; sync; cat /home/new")
