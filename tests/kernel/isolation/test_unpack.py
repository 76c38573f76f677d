"""The unpacker in a process whose root is an empty directory: what becomes of entries in a filesystem.

As in the jail it is the init of a PID namespace, which is told apart from others by how the kernel sends it signals.

How archives are read is in tests/unit/isolation/test_tar_reader.py, the jail around the unpacker in
tests/e2e/test_images.py.
"""

import errno
import gzip
import json
import lzma
import os
import random
import resource
import signal
import struct
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from sysproc.isolation.acl_text import acl_value
from sysproc.isolation.builder import failure_message
from sysproc.isolation.jail import how_it_ended
from sysproc.isolation.root_mount import mount_detached
from sysproc.isolation.unpack import out_of_time, unpack_archive
from sysproc.linux.mounts import AT_FDCWD, MNT_DETACH, mount, move_mount, umount2
from sysproc.linux.namespaces import CLONE_NEWPID, clone3
from tests.archives import FORMATS, Archive, header, pax

Prepare = Callable[[], object]
END = bytes(1024)
PERMITTED = {errno.EBADMSG, errno.EINVAL}


@dataclass(frozen=True)
class Outcome:
    """What the unpacker's process has said."""

    errno: int = 0
    target: str = ""
    counts: dict[str, Any] = field(default_factory=dict)


def unpack(root: Path, archive: bytes, prepare: Prepare = lambda: None) -> Outcome:
    """Unpack into a directory, in a process that has it as its root."""
    source = os.memfd_create("archive")
    os.write(source, archive)
    os.lseek(source, 0, os.SEEK_SET)
    try:
        return unpack_fd(root, source, prepare)
    finally:
        os.close(source)


def unpack_fd(root: Path, source: int, prepare: Prepare) -> Outcome:
    ours, theirs = os.pipe()
    pid, pidfd = clone3(CLONE_NEWPID)
    if pid == 0:
        os.close(ours)
        live(root, source, theirs, prepare)
    os.close(theirs)
    os.close(pidfd)
    with open(ours, "rb") as said:
        message = said.read()
    _, status, usage = os.wait4(pid, 0)
    assert message, how_it_ended(status, usage)
    told = json.loads(message)
    return Outcome(**told["failed"]) if "failed" in told else Outcome(counts=told)


def live(root: Path, source: int, theirs: int, prepare: Prepare) -> None:
    try:
        os.chroot(root)
        os.chdir("/")
        os.umask(0)
        prepare()
        os.write(theirs, json.dumps(unpack_archive(source, lambda _: None)).encode())
    except OSError as failure:
        os.write(theirs, failure_message(failure))
    finally:
        os._exit(0)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """An empty root; what may be deeper than pytest removes goes with `rm`."""
    directory = tmp_path / "root"
    directory.mkdir()
    yield directory
    assert os.spawnvp(os.P_WAIT, "rm", ["rm", "-rf", str(directory)]) == 0


def entries(*wanted: tuple[str, bytes] | tuple[str, bytes, str]) -> bytes:
    """An archive of names, flags, and what they link to or have in them."""
    archive = Archive()
    for name, flag, *more in wanted:
        text = more[0] if more else ""
        if flag == tarfile.REGTYPE:
            archive.add(name, text.encode())
        else:
            archive.add(name, type=flag, linkname=text, mode=0o755)
    return archive.bytes()


FILE, DIRECTORY, LINK, HARD = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


def test_what_is_unpacked_is_what_was_packed(root: Path) -> None:
    archive = entries(("d", DIRECTORY), ("d/f", FILE, "text"), ("l", LINK, "d/f"), ("h", HARD, "d/f"), ("p", b"6"))
    outcome = unpack(root, archive)
    assert (outcome.errno, outcome.counts["entries"], outcome.counts["bytes"]) == (0, 5, 4)
    assert (root / "h").read_text() == "text" and (root / "h").stat().st_nlink == 2
    assert os.readlink(root / "l") == "d/f" and (root / "p").is_fifo()


def checked_zstd(data: bytes) -> bytes:
    """As `zstd` writes it: with a checksum at the end of the frame."""
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


PACKERS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "xz": lzma.compress, "zstd": checked_zstd}
packers = pytest.mark.parametrize("packer", PACKERS)


@packers
@pytest.mark.parametrize("cut", [0, 700])
def test_a_packed_archive_of_one_or_many_streams_is_read(root: Path, packer: str, cut: int) -> None:
    data, pack = entries(("f", FILE, "text")), PACKERS[packer]
    assert unpack(root, pack(data[:cut]) + pack(data[cut:])).errno == 0
    assert (root / "f").read_text() == "text"


@packers
@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[:-5] + b"12345", lambda data: data + b"x"]
)
def test_a_broken_packed_archive_is_refused(root: Path, packer: str, damage: Callable[[bytes], bytes]) -> None:
    assert unpack(root, damage(PACKERS[packer](entries(("f", FILE, "text"))))).errno == errno.EBADMSG


@pytest.mark.parametrize("levels", [1500, 2000])
def test_a_path_of_many_levels_is_made(root: Path, levels: int) -> None:
    assert unpack(root, entries(("d/" * levels + "f", FILE, "deep"))).errno == 0
    deep = os.open(root, os.O_RDONLY)
    for _ in range(levels):
        deep, above = os.open("d", os.O_RDONLY, dir_fd=deep), deep
        os.close(above)
    assert os.listdir(deep) == ["f"]
    os.close(deep)


@pytest.mark.parametrize("name", ["d/" * 3000 + "f", "x" * 300])
def test_a_path_or_name_that_linux_does_not_know_is_refused(root: Path, name: str) -> None:
    outcome = unpack(root, entries((name, FILE)))
    assert outcome.errno == errno.EINVAL and "too long" in outcome.target


@pytest.mark.parametrize("name", [".", "/", "//", "", "./", "a/.."])
@pytest.mark.parametrize("flag", [FILE, LINK, HARD, b"6"])
def test_an_entry_for_the_root_that_is_no_directory_is_refused(root: Path, name: str, flag: bytes) -> None:
    (root / "kept").mkdir()
    archive = header("x", flag=flag, value=name.encode().ljust(2, b"\0"), at=0) if len(name) < 2 else b""
    outcome = unpack(root, (archive or pax({"path": name}) + header("x", flag=flag)) + END)
    assert outcome.errno == errno.EBADMSG and "root" in outcome.target
    assert (root / "kept").is_dir()


@pytest.mark.parametrize("name", [".", "/", "./", "a/.."])
def test_an_entry_for_the_root_that_is_a_directory_sets_its_owner(root: Path, name: str) -> None:
    archive = Archive()
    archive.add(name, type=DIRECTORY, mode=0o750, uid=7, mtime=99)
    assert unpack(root, archive.bytes()).errno == 0
    found = root.stat()
    assert (found.st_mode & 0o7777, found.st_uid, found.st_mtime) == (0o750, 7, 99)


def test_a_later_file_wins_over_a_file_a_link_and_an_empty_directory(root: Path) -> None:
    first = (("a", FILE, "old"), ("b", LINK, "nowhere"), ("c", DIRECTORY))
    assert unpack(root, entries(*first, *((name, FILE, "new") for name in "abc"))).errno == 0
    assert [(root / name).read_text() for name in "abc"] == ["new"] * 3


def test_a_later_directory_wins_over_a_file_and_a_dangling_link_and_keeps_a_directory(root: Path) -> None:
    first = (("a", FILE, "old"), ("b", LINK, "nowhere"), ("c/kept", FILE))
    assert unpack(root, entries(*first, *((name, DIRECTORY) for name in "abc"))).errno == 0
    assert [sorted(os.listdir(root / name)) for name in "abc"] == [[], [], ["kept"]]


@pytest.mark.parametrize("flag", [FILE, LINK, HARD, b"6"])
def test_a_directory_with_something_in_it_gives_way_to_nothing_else(root: Path, flag: bytes) -> None:
    outcome = unpack(root, entries(("f", FILE), ("d/" * 1500 + "x", FILE), ("d", flag, "f")))
    assert outcome.errno == errno.EBADMSG and "'d'" in outcome.target


CONTRADICTIONS = {
    "a link to nothing": entries(("l", LINK, "")),
    "a hard link to a directory": entries(("d", DIRECTORY), ("h", HARD, "d")),
    "a hard link to itself": entries(("h", HARD, "h")),
    "a hard link to nothing": entries(("h", HARD, "nothing")),
    "below a file": entries(("f", FILE), ("f/g", FILE)),
    "below a link to nowhere": entries(("l", LINK, "nowhere"), ("l/f", FILE)),
    "below a loop of links": entries(("a", LINK, "b"), ("b", LINK, "a"), ("a/f", FILE)),
    "an unknown kind": header("x", flag=b"V") + END,
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_what_contradicts_itself_is_broken(root: Path, case: str) -> None:
    outcome = unpack(root, CONTRADICTIONS[case])
    assert outcome.errno == errno.EBADMSG and outcome.target.startswith("broken archive: ")


BEYOND = {
    "too large an attribute": pax({"SCHILY.xattr.user.a": "x" * 70_000}) + header("f"),
    "too long a name of an attribute": pax({"SCHILY.xattr.user." + "a" * 300: "x"}) + header("f"),
    "an owner that no container has": header("f", at=108, value=b"0777777\0"),
    "more bytes together than there can be": b"".join(
        pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 62)})
        + header("f", b"0\n".ljust(512, b"\0"))
        for _ in range(2)
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BEYOND)
def test_what_no_container_can_have_is_refused_with_its_name(root: Path, case: str) -> None:
    outcome = unpack(root, BEYOND[case] + END)
    assert outcome.errno == errno.EINVAL and ("'f'" in outcome.target or "together" in outcome.target)


LISA = {"SCHILY.acl.access": "user::rwx,user:lisa:r-x,group::r-x,group:staff:r--,mask::r-x,other::---"}
LISTS = (("etc/passwd", FILE, "root:x:0:0::/:\nlisa:x:1234:1234::/:\n"), ("etc/group", FILE, "staff:x:50:lisa\n"))


def acl_of(path: Path, name: str = "access") -> list[tuple[int, int, int]]:
    """Tag, permissions, id of those with a name."""
    value = os.getxattr(path, f"system.posix_acl_{name}")
    return [entry for entry in struct.iter_unpack("<HHI", value[4:]) if entry[2] != 0xFFFFFFFF]


def test_names_in_acls_are_those_of_the_archive_wherever_they_come(root: Path) -> None:
    named = pax(LISA) + header("before") + pax(LISA) + header("replaced") + header("replaced")
    assert unpack(root, named + entries(*LISTS)).errno == 0
    assert acl_of(root / "before") == [(2, 5, 1234), (8, 4, 50)]
    assert os.listxattr(root / "replaced") == []


def test_an_acl_of_nobody_that_is_there_is_left_out_and_told(root: Path) -> None:
    nonsense = pax({"SCHILY.acl.access": "owner@:rwx:allow"}) + header("other")
    outcome = unpack(root, pax(LISA) + header("file") + nonsense + END)
    assert (outcome.errno, outcome.counts["skipped_attributes"]) == (0, 2)
    assert outcome.counts["attribute_names"] == {"system.posix_acl_access": 2}


@pytest.mark.parametrize("keyword", ["SCHILY.acl.default", "SCHILY.xattr.system.posix_acl_default"])
def test_what_is_unpacked_below_a_default_acl_does_not_inherit_it(root: Path, keyword: str) -> None:
    text = "user::rwx,user:7:rwx,group::r-x,mask::rwx,other::---"
    value = (
        text if "xattr" not in keyword else acl_value(text.encode(), lambda *_: 0).decode("utf-8", "surrogateescape")
    )
    archive = Archive()
    archive.add("d", type=DIRECTORY, mode=0o755, pax_headers={keyword: value})
    archive.add("d/file", b"x", mode=0o640)
    assert unpack(root, archive.bytes()).errno == 0
    assert acl_of(root / "d", "default") == [(2, 7, 7)]
    assert os.listxattr(root / "d/file") == [] and (root / "d/file").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("keyword", ["SCHILY.acl.default", "SCHILY.xattr.system.posix_acl_default"])
def test_a_later_entry_of_a_directory_has_no_acl_of_one_before(root: Path, keyword: str) -> None:
    text = "user::rwx,user:7:rwx,group::r-x,mask::rwx,other::---"
    if "xattr" in keyword:
        text = acl_value(text.encode(), lambda *_: 0).decode("utf-8", "surrogateescape")
    archive = Archive()
    for name, fields in (("d", {keyword: text}), ("d", {}), ("kept", {keyword: text})):
        archive.add(name, type=DIRECTORY, mode=0o755, pax_headers=fields)
    assert unpack(root, archive.bytes()).errno == 0
    assert os.listxattr(root / "d") == []
    assert acl_of(root / "kept", "default") == [(2, 7, 7)]


def acl_of_many(first: int, count: int) -> str:
    """A default ACL, in words."""
    users = "".join(f"user:{first + number}:rwx," for number in range(count))
    return f"user::rwx,{users}group::r-x,mask::rwx,other::---"


@pytest.fixture
def small_root(root: Path, tmp_path: Path) -> Iterator[Path]:
    """Its root is an ext4 of 2 MiB."""
    image = tmp_path / "image"
    options = ("-q", "-b", "1024", "-N", "1000", "-I", "256", "-m", "0", "-O", "^has_journal")
    subprocess.run(["mke2fs", "-t", "ext4", *options, str(image), "2048"], check=True)
    fd = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    try:
        move_mount(mount_detached(fd, fstype="ext4", offset=0, size=2 << 20), AT_FDCWD, root)
    finally:
        os.close(fd)
    yield root
    umount2(root, MNT_DETACH)


def test_a_filesystem_that_is_full_when_acls_are_set_at_the_end_is_told(small_root: Path) -> None:
    """Each directory takes a block, each ACL another."""
    wanted = (
        pax({"SCHILY.acl.default": acl_of_many(1000 + number, 20)}) + header(f"d{number}", flag=DIRECTORY)
        for number in range(900)
    )
    outcome = unpack(small_root, b"".join(wanted) + END)
    assert outcome.errno == errno.EDQUOT and "'d" in outcome.target


def test_an_acl_that_the_filesystem_does_not_take_at_the_end_is_refused_with_its_name(small_root: Path) -> None:
    archive = pax({"SCHILY.acl.default": acl_of_many(1000, 400)}) + header("d", flag=DIRECTORY)
    outcome = unpack(small_root, archive + END)
    assert outcome.errno == errno.EINVAL and "'d'" in outcome.target


@pytest.mark.parametrize("fields", [{}, {"SCHILY.acl.default": "user::rwx,group::r-x,other::---"}], ids=["time", "acl"])
def test_a_directory_that_is_behind_a_loop_of_links_at_the_end_is_broken(root: Path, fields: dict[str, str]) -> None:
    before = entries(("one", DIRECTORY), ("l", LINK, "one"))[: 2 * 512]
    after = entries(("l", LINK, "l"))
    outcome = unpack(root, before + pax(fields) + header("l/x", flag=DIRECTORY) + after)
    assert outcome.errno == errno.EBADMSG and "'l/x'" in outcome.target


def test_of_very_many_attributes_some_names_are_told(root: Path) -> None:
    archive = b"".join(pax({f"SCHILY.xattr.nosuch{number}.x": ""}) + header(f"f{number}") for number in range(30))
    outcome = unpack(root, archive + END)
    assert outcome.counts["skipped_attributes"] == 30 and len(outcome.counts["attribute_names"]) == 16


@pytest.mark.parametrize(("time", "expected"), [("-1.5", -1.5), ("0.25", 0.25), ("-86400", -86400)])
def test_times_before_1970_are_set(root: Path, time: str, expected: float) -> None:
    archive = (
        pax({"mtime": time}) + header("f") + pax({"mtime": time}) + header("d", flag=DIRECTORY) + header("d/x") + END
    )
    assert unpack(root, archive).errno == 0
    assert [(root / name).stat().st_mtime for name in ("f", "d")] == [expected] * 2


def test_a_time_beyond_what_the_filesystem_knows_is_the_last_that_it_knows(root: Path) -> None:
    assert unpack(root, pax({"mtime": str(1 << 62)}) + header("f") + END).errno == 0
    assert (root / "f").stat().st_mtime > 2**31 - 2


def test_the_time_of_a_directory_below_a_link_that_was_moved_is_forgotten(root: Path) -> None:
    wanted = (("one/x", DIRECTORY), ("two", DIRECTORY), ("l", LINK, "one"), ("l/x", DIRECTORY), ("l", LINK, "two"))
    assert unpack(root, entries(*wanted)).errno == 0


def test_a_file_that_is_larger_than_the_filesystem_takes_is_refused(root: Path) -> None:
    def prepare() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))

    outcome = unpack(root, entries(("f", FILE, "x" * 100_000)), prepare)
    assert outcome.errno == errno.EINVAL and "'f': File too large" in outcome.target


@pytest.mark.parametrize("options", ["size=64k", "nr_inodes=4"])
@pytest.mark.parametrize("size", [1, 30_000])
def test_a_filesystem_that_is_full_is_told_apart_from_a_disk_that_is(root: Path, options: str, size: int) -> None:
    mount("tmpfs", root, fstype="tmpfs", data=options)
    try:
        outcome = unpack(root, entries(*((f"f{number}", FILE, "x" * size) for number in range(50))))
    finally:
        umount2(root, MNT_DETACH)
    assert outcome.errno == errno.EDQUOT and "'f" in outcome.target


def little_memory(more: int = 24 << 20) -> Prepare:
    """A limit of address space a little above what this process has; /proc is read before the root is another."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def test_many_entries_take_no_memory(root: Path) -> None:
    assert unpack(root, header("f", flag=b"3") * 100_000 + END, little_memory()).counts["entries"] == 100_000


def test_too_many_directories_are_a_limit_of_memory_and_said_so(root: Path) -> None:
    """One directory by a thousand names, by way of links to `.`: their times are kept until the end."""
    links = [letter * 250 for letter in "lm"]
    parts = [pax({"path": link, "linkpath": "."}) + header("x", flag=LINK) for link in links]
    for number in range(1 << 15):
        path = "/".join(links[number >> bit & 1] for bit in range(15))
        parts.append(pax({"path": f"{path}/d"}) + header("x", flag=DIRECTORY))
    outcome = unpack(root, b"".join(parts) + END, little_memory(8 << 20))
    assert outcome.errno == errno.ENOMEM and "too many directories" in outcome.target


def test_processor_time_without_end_is_a_limit_and_said_so(root: Path) -> None:
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        endless(ours, theirs)
    os.close(theirs)

    def prepare() -> None:
        signal.signal(signal.SIGXCPU, out_of_time)
        resource.setrlimit(resource.RLIMIT_CPU, (1, 60))

    try:
        outcome = unpack_fd(root, ours, prepare)
    finally:
        os.close(ours)
        os.waitpid(pid, 0)
    assert outcome.errno == errno.ETIME and "too many entries" in outcome.target


def endless(ours: int, theirs: int) -> None:
    """Write entries until nobody reads them any more."""
    os.close(ours)
    block = header("f") * 2000
    try:
        while True:
            os.write(theirs, block)
    except BrokenPipeError:
        os._exit(0)
    finally:
        os._exit(1)


def test_a_process_that_could_say_nothing_is_told_of_by_its_end() -> None:
    pid = os.fork()
    if pid == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    assert "ended by SIGKILL, after 0 of" in how_it_ended(*os.wait4(pid, 0)[1:])


def valid(kind: int) -> bytes:
    """An archive of some of everything."""
    archive = Archive(kind)
    archive.add("d", type=DIRECTORY, mode=0o755)
    archive.add("d/f", random.Random(1).randbytes(1500))
    archive.add("d/l", type=LINK, linkname="f")
    archive.add("h", type=HARD, linkname="d/f")
    archive.add("n" * 90 + "/" + "m" * 90, b"x" * 600)
    return archive.bytes()


COUNTED = 5


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FORMATS), st.sampled_from([bytes, *PACKERS.values()]), st.data())
def test_a_damaged_archive_is_refused_or_whole(
    tmp_path_factory: pytest.TempPathFactory, kind: int, pack: Callable[[bytes], bytes], data: st.DataObject
) -> None:
    whole = bytearray(pack(valid(kind)))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    outcome = unpack(tmp_path_factory.mktemp("root"), bytes(whole))
    assert outcome.errno in PERMITTED or outcome.counts["entries"] == COUNTED


HEADERS = st.builds(
    lambda name, flag, link, data: header(name, data, flag=flag, at=157, value=link),
    st.sampled_from(["a", "a/b", "a/b/c", ".", "/", "../a", "b", "b/../a"]),
    st.sampled_from([b"0", b"1", b"2", b"3", b"5", b"6", b"7", b"L", b"K", b"S", b"\0"]),
    st.sampled_from([b"", b"a\0", b"b\0", b"/\0", b"../b\0", b"a/b\0"]),
    st.sampled_from([b"", b"a/b\0", b"x" * 600, b"/\0"]),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(HEADERS, max_size=8))
def test_any_entries_in_any_order_are_unpacked_or_refused(
    tmp_path_factory: pytest.TempPathFactory, headers: list[bytes]
) -> None:
    outcome = unpack(tmp_path_factory.mktemp("root"), b"".join(headers) + END)
    assert outcome.errno in {0, *PERMITTED}
