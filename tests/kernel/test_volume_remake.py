"""Images of others become volumes of ours: what is in them is there afterwards, and the kernel has not read them.

What is made is looked at by the kernel and by e2fsck; how the readers read is in tests/unit/isolation/readers/.
"""

import os
import shutil
import stat
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from sysproc.errors import InvalidArgument
from sysproc.isolation.root_mount import mount_detached
from sysproc.jailed import Jails
from sysproc.sparse import copy_data
from sysproc.storage.vsf.clone import fresh_vsf
from sysproc.storage.vsf.disk import read_disk
from sysproc.storage.vsf.layout import Wanted, plan
from sysproc.volume_remake import Remade, remade
from tests.kernel.jails import jails as running_jails

MIB = 1 << 20
MAKERS = {
    "ext4": ["-t", "ext4"],
    "ext4 with inline data": ["-t", "ext4", "-O", "inline_data", "-I", "512"],
    "ext4 with meta_bg": ["-t", "ext4", "-O", "meta_bg,^resize_inode,^64bit", "-b", "1024"],
    "ext3": ["-t", "ext3", "-b", "2048"],
    "ext2": ["-t", "ext2", "-b", "1024"],
}


@pytest.fixture
async def jails() -> AsyncIterator[Jails]:
    async with running_jails() as made:
        yield made


@pytest.fixture
def content(tmp_path: Path) -> Path:
    """A tree with everything that a filesystem can have, but devices."""
    top = tmp_path / "content"
    (top / "d/many").mkdir(parents=True)
    (top / "small").write_text("hi")
    (top / "large").write_bytes(os.urandom(5 * MIB + 3))
    (top / "empty").touch()
    with (top / "sparse").open("wb") as file:
        file.seek(7 * MIB)
        file.write(b"end")
    (top / "d/link").symlink_to("../small")
    (top / "d/long").symlink_to("x/" * 100)
    os.link(top / "large", top / "d/hard")
    os.mkfifo(top / "fifo", 0o640)
    for number in range(600):
        (top / f"d/many/a name that is rather long {number}").write_text(str(number))
    os.chown(top / "small", 7, 8)
    os.chmod(top / "small", 0o4750)
    os.setxattr(top / "small", "user.note", b"value")
    os.setxattr(top / "large", "user.much", b"v" * 700)
    os.setxattr(top / "large", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    os.setxattr(top / "d", "system.posix_acl_access", acl((1, 7), (2, 6, 5), (4, 5), (16, 7), (32, 5)))
    for path in [*sorted(top.rglob("*"), reverse=True), top]:
        os.utime(path, ns=(0, 1_234_567_890_123_456_000 + len(path.name)), follow_symlinks=False)
    return top


def acl(*entries: tuple[int, ...]) -> bytes:
    """As setxattr(2) takes it: tag, permissions, id."""
    made = (2).to_bytes(4, "little")
    for tag, permissions, *who in entries:
        made += b"".join(part.to_bytes(2, "little") for part in (tag, permissions))
        made += (who[0] if who else 0xFFFFFFFF).to_bytes(4, "little")
    return made


def described(top: Path) -> Mapping[str, object]:
    """All that can be seen of a tree."""
    found: dict[str, object] = {}
    for path in [top, *sorted(top.rglob("*"))]:
        name = str(path.relative_to(top))
        if name == "lost+found":
            continue
        seen = path.lstat()
        data: object = None
        if stat.S_ISREG(seen.st_mode):
            data = path.read_bytes()
        elif stat.S_ISLNK(seen.st_mode):
            data = os.readlink(path)
        attributes = {
            one: os.getxattr(path, one, follow_symlinks=False) for one in os.listxattr(path, follow_symlinks=False)
        }
        links = seen.st_nlink if not stat.S_ISDIR(seen.st_mode) else 0
        when = seen.st_mtime_ns if name != "." else 0
        found[name] = (seen.st_mode, seen.st_uid, seen.st_gid, links, when, data, attributes)
    return found


def run(*command: str | Path) -> str:
    """What a tool says."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextmanager
def mounted(path: Path, *, fstype: str = "ext4", at: int = 0) -> Iterator[Path]:
    """One filesystem of a file, where nobody else sees it."""
    with path.open("rb+") as file:
        part = read_disk(file.fileno())[at]
        mount = mount_detached(file.fileno(), fstype=fstype, offset=part.offset_bytes, size=part.size_bytes)
    try:
        yield Path(f"/proc/{os.getpid()}/fd/{mount}/.")
    finally:
        os.close(mount)


def image(path: Path, options: list[str], size: int, content: Path | None = None) -> Path:
    """An ext4 of others, with what is in a folder copied by the kernel: only so it has everything."""
    path.touch()
    os.truncate(path, size)
    run("mke2fs", "-q", "-F", *options, path)
    if content is not None:
        with mounted(path) as top:
            run("cp", "-a", "--sparse=always", f"{content}/.", f"{top}/")
    return path


async def remake(jails: Jails, source: Path, target: Path) -> Remade:
    with source.open("rb") as file:
        async with remade(jails, file.fileno(), target.parent) as made:
            made.write(target)
            return made


def check_flawless(path: Path, tmp_path: Path) -> None:
    """By e2fsck, of the first filesystem."""
    alone = tmp_path / "looked-at"
    with path.open("rb") as file:
        part = read_disk(file.fileno())[0]
        alone.write_bytes(os.pread(file.fileno(), part.size_bytes, part.offset_bytes))
    done = subprocess.run(["e2fsck", "-fn", alone], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind", MAKERS)
async def test_everything_in_an_ext_filesystem_is_there_afterwards(
    jails: Jails, kind: str, content: Path, tmp_path: Path
) -> None:
    source = image(tmp_path / "source", MAKERS[kind], 48 * MIB, content)
    with mounted(source) as top:
        wanted = described(top)
    before = source.read_bytes()
    made = await remake(jails, source, tmp_path / "made.vsf")
    assert source.read_bytes() == before and made.skipped == 0
    with mounted(tmp_path / "made.vsf") as top:
        assert described(top) == wanted
        assert (top / "sparse").stat().st_blocks < MIB // 512
    check_flawless(tmp_path / "made.vsf", tmp_path)


@pytest.mark.skipif(shutil.which("mkfs.erofs") is None, reason="mkfs.erofs is not installed")
@pytest.mark.parametrize("how", [(), ("-zlz4hc,9",)], ids=["plain", "compressed"])
async def test_everything_in_an_erofs_is_there_afterwards(
    jails: Jails, how: tuple[str, ...], content: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    (content / "text").write_text("again and again " * 100_000)
    run("mkfs.erofs", "--quiet", *how, source, content)
    with mounted(source, fstype="erofs") as top:
        wanted = described(top)
    await remake(jails, source, tmp_path / "made.vsf")
    with mounted(tmp_path / "made.vsf") as top:
        assert described(top) == wanted


async def test_a_partitioned_image_keeps_its_labels_and_order(jails: Jails, tmp_path: Path) -> None:
    source = tmp_path / "source"
    alone = [image(tmp_path / f"{number}", ["-t", "ext4"], 16 * MIB) for number in range(2)]
    with mounted(alone[1]) as top:
        (top / "second").write_text("here")
    gpt = plan([Wanted("usr", 16 * MIB), Wanted("a_label_longer_than_ext4_has", 16 * MIB)], 34 * MIB)
    with source.open("wb+") as file:
        fresh_vsf(file.fileno(), gpt)
        for path, partition in zip(alone, gpt.partitions, strict=True):
            with path.open("rb") as one:
                copy_data(one.fileno(), file.fileno(), partition.offset_bytes)
    made = await remake(jails, source, tmp_path / "made.vsf")
    assert [one.label for one in made.filesystems] == ["usr", "a_label_longer_t"]
    with (tmp_path / "made.vsf").open("rb") as file:
        parts = read_disk(file.fileno())
    assert [(one.label, one.contents and one.contents.uuid) for one in parts] == [
        (one.label, one.uuid) for one in made.filesystems
    ]
    with mounted(tmp_path / "made.vsf", at=1) as top:
        assert (top / "second").read_text() == "here"


async def test_a_journal_is_replayed_in_a_copy_before(jails: Jails, tmp_path: Path) -> None:
    source, cut = image(tmp_path / "source", ["-t", "ext4"], 32 * MIB), tmp_path / "cut"
    with mounted(source) as top:
        (top / "synced").write_text("in the journal")
        fd = os.open(top / "synced", os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        shutil.copyfile(source, cut)
    before = cut.read_bytes()
    assert int.from_bytes(before[1024 + 0x60 : 1024 + 0x64], "little") & 4, "it needs no recovery"
    await remake(jails, cut, tmp_path / "made.vsf")
    assert cut.read_bytes() == before
    with mounted(tmp_path / "made.vsf") as top:
        assert (top / "synced").read_text() == "in the journal"


async def test_what_does_not_fit_gets_more_room(jails: Jails, tmp_path: Path) -> None:
    source = image(tmp_path / "source", ["-t", "ext2", "-N", "12000", "-m", "0"], 32 * MIB)
    with mounted(source) as top:
        for number in range(11000):
            (top / str(number)).touch()
    made = await remake(jails, source, tmp_path / "made.vsf")
    assert made.entries > 11000 and made.filesystems[0].size_bytes > 32 * MIB


async def test_a_block_that_two_files_have_is_refused_and_nothing_is_left(jails: Jails, tmp_path: Path) -> None:
    source = image(tmp_path / "source", ["-t", "ext2"], 16 * MIB)
    with mounted(source) as top:
        for name in ("first", "second"):
            (top / name).write_bytes(b"x" * 5000)
    block = run("debugfs", "-R", "bmap first 0", source).split()[-1]
    run("debugfs", "-w", "-R", f"set_inode_field second block[0] {block}", source)
    with pytest.raises(InvalidArgument, match="is used twice"):
        await remake(jails, source, tmp_path / "made.vsf")
    assert not (tmp_path / "made.vsf").exists()


@pytest.mark.parametrize("kind", ["btrfs", "xfs"])
async def test_what_is_not_read_is_refused_with_the_way_out(jails: Jails, kind: str, tmp_path: Path) -> None:
    if shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"mkfs.{kind} is not installed")
    source = tmp_path / "source"
    source.touch()
    os.truncate(source, 320 * MIB)
    run(f"mkfs.{kind}", "-q", "-f", source)
    with pytest.raises(InvalidArgument, match="--trust") as refused:
        await remake(jails, source, tmp_path / "made.vsf")
    assert refused.value.reason == "VOLUME_NOT_READABLE" and kind in refused.value.brief


async def test_ids_that_no_container_has_are_refused(jails: Jails, tmp_path: Path) -> None:
    source = image(tmp_path / "source", ["-t", "ext4"], 16 * MIB)
    with mounted(source) as top:
        (top / "file").touch()
        os.chown(top / "file", 70000, 0)
    with pytest.raises(InvalidArgument, match="70000:0"):
        await remake(jails, source, tmp_path / "made.vsf")
