"""Images: what comes in as a tar or a folder is unpacked as it was, or refused with the reason; never anywhere else.

A sentinel directory of the host, whose absolute path the hostile archives name, is compared before and after.
"""

import errno
import gzip
import io
import lzma
import os
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard

from nightos.sysproc.v1 import image_service_pb2 as pb
from sysproc_client import Client, Container, FailedPrecondition, InvalidArgument, NotFound, SysprocError
from tests.archives import BUSYBOX, Archive, header, pax
from tests.e2e.conftest import Sysproc
from tests.e2e.daemon import RunningDaemon
from tests.waiting import wait_until

Add = Callable[..., None]
NEEDS_RECOVERY = 0x4
Imported = Callable[[bytes], Container]


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[Path]:
    """Nothing in it changes, whatever is unpacked."""
    (tmp_path / "file").write_text("untouched")
    tmp_path.chmod(0o777)
    yield tmp_path
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("file", "untouched")]


def refused(client: Client, data: bytes) -> SysprocError:
    """The error for these bytes; nothing of them is left."""
    with pytest.raises(InvalidArgument) as caught:
        client.images.import_("hostile", io.BytesIO(data))
    assert [image.name for image in client.images.list()] == ["busybox"]
    return caught.value


def text(box: Container, *argv: str) -> str:
    """What a command prints."""
    result = box.run([*argv])
    assert result.exit_code == 0, result
    return result.stdout.decode()


@pytest.mark.parametrize("up", ["{}", "../../../../../../..{}", "a/../../../../..{}"])
def test_absolute_and_dotted_names_stay_inside(archive: Archive, imported: Imported, sentinel: Path, up: str) -> None:
    archive.busybox()
    archive.add(up.format(f"{sentinel}/file"), b"evil")
    assert text(imported(archive.bytes()), "cat", f"{sentinel}/file") == "evil"


def test_a_link_out_of_the_image_leads_nowhere(archive: Archive, imported: Imported, sentinel: Path) -> None:
    archive.busybox()
    archive.add("out", type=tarfile.SYMTYPE, linkname=str(sentinel))
    archive.add("up", type=tarfile.SYMTYPE, linkname="../../../../../.." + str(sentinel))
    archive.add(f"{sentinel}/inside", b"")
    archive.add("out/new", b"evil")
    archive.add("up/other", b"evil")
    box = imported(archive.bytes())
    assert text(box, "cat", f"{sentinel}/new", f"{sentinel}/other") == "evilevil"


def test_a_file_below_a_link_to_nowhere_is_refused(client: Client, archive: Archive, sentinel: Path) -> None:
    archive.add("out", type=tarfile.SYMTYPE, linkname=str(sentinel))
    archive.add("out/new", b"evil")
    assert "out/new" in str(refused(client, archive.bytes()))


def test_a_hard_link_to_what_is_not_in_the_archive_is_refused(client: Client, archive: Archive, sentinel: Path) -> None:
    archive.add("passwd", type=tarfile.LNKTYPE, linkname=f"{sentinel}/file")
    assert str(sentinel) in str(refused(client, archive.bytes()))


def test_hard_links_within_are_kept(archive: Archive, imported: Imported) -> None:
    archive.busybox()
    archive.add("one", b"same")
    archive.add("two", type=tarfile.LNKTYPE, linkname="one")
    assert text(imported(archive.bytes()), "stat", "-c", "%h", "/two").strip() == "2"


def test_devices_are_left_out_and_counted_and_fifos_are_made(
    client: Client, archive: Archive, imported: Imported
) -> None:
    archive.busybox()
    for number, kind in enumerate((tarfile.CHRTYPE, tarfile.BLKTYPE)):
        archive.add(f"device{number}", type=kind, devmajor=1, devminor=3)
    archive.add("fifo", type=tarfile.FIFOTYPE)
    data = archive.bytes()
    assert client.images.import_("hostile", io.BytesIO(data)).skipped_devices == 2
    assert text(imported(data), "find", "/", "-maxdepth", "1", "-type", "p").split() == ["/fifo"]


def test_modes_owners_and_attributes_are_kept(archive: Archive, imported: Imported) -> None:
    archive.busybox()
    archive.add("setuid", b"x", mode=0o4755, uid=1000, gid=1001)
    archive.add("marked", b"x", pax_headers={"SCHILY.xattr.user.note": "hello"})
    box = imported(archive.bytes())
    assert text(box, "stat", "-c", "%a %u %g", "/setuid").strip() == "4755 1000 1001"


def test_an_owner_that_no_container_has_is_refused(client: Client, archive: Archive) -> None:
    archive.add("file", b"x", uid=70000)
    assert "70000" in str(refused(client, archive.bytes()))


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, zstandard.compress], ids=["gzip", "xz", "zstd"])
def test_a_packed_archive_is_the_same(archive: Archive, imported: Imported, pack: Callable[[bytes], bytes]) -> None:
    archive.busybox()
    archive.add("note", b"packed")
    assert text(imported(pack(archive.bytes())), "cat", "/note") == "packed"


def good(archive: Archive) -> bytes:
    """Some entries of some size."""
    for number in range(50):
        archive.add(f"file{number}", random.Random(number).randbytes(3000))
    return archive.bytes()


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_truncated_archive_is_refused(client: Client, archive: Archive, part: float) -> None:
    data = good(archive)
    refused(client, data[: int(len(data) * part) // 512 * 512 + 100])


@pytest.mark.parametrize("part", [0.1, 0.9])
def test_a_truncated_gzip_is_refused(client: Client, archive: Archive, part: float) -> None:
    data = gzip.compress(good(archive))
    refused(client, data[: int(len(data) * part)])


@pytest.mark.parametrize("seed", range(4))
def test_random_bytes_are_refused(client: Client, seed: int) -> None:
    refused(client, random.Random(seed).randbytes(100_000))


def test_nothing_at_all_is_refused(client: Client) -> None:
    refused(client, b"")


def test_an_archive_without_its_end_is_refused(client: Client, archive: Archive) -> None:
    """All entries are there, and nothing says that there were no more."""
    data = good(archive).rstrip(b"\0")
    assert "truncated" in str(refused(client, data.ljust(-(-len(data) // 512) * 512, b"\0")))


def test_a_broken_header_in_the_middle_is_refused(client: Client, archive: Archive) -> None:
    data = good(archive)
    at = data.index(b"file25\0")
    assert f"byte {at}" in str(refused(client, data[:at] + b"FILE" + data[at + 4 :]))


HOSTILE = {
    "headers of one entry": header("again", flag=b"L") * 5000,
    "more than 1048576 bytes": header("huge", flag=b"x", at=124, value=b"\x80" + (3 << 30).to_bytes(11, "big")),
    "'inf' is no time": pax({"mtime": "inf"}) + header("file"),
    "the root itself": header("kept/") + header(".", b"x"),
    "File name too long": pax({"path": "d/" * 3000}) + header("x"),
    "attributes are too large": pax({"SCHILY.xattr.user.a": "x" * 5000}) + header("x"),
    "No such file": header("x", flag=tarfile.SYMTYPE),
    "Directory not empty": header("d/" * 40 + "f") + header("d"),
    "unknown kind": header("x", at=0, value=b"\xff" * 90, flag=b"V"),
}


@pytest.mark.parametrize("words", HOSTILE)
def test_what_no_archiver_makes_is_refused_with_the_reason(client: Client, words: str) -> None:
    failure = refused(client, HOSTILE[words] + bytes(1024))
    assert failure.reason == "BAD_ARCHIVE" and words in str(failure)


@pytest.mark.slow
def test_more_links_to_a_file_than_ext4_knows_are_refused(client: Client) -> None:
    links = b"".join(header(f"link{number}", flag=tarfile.LNKTYPE, at=157, value=b"f") for number in range(65_001))
    assert "Too many links" in str(refused(client, header("f") + links + bytes(1024)))


def test_a_path_of_many_levels_is_there(archive: Archive, imported: Imported) -> None:
    archive.busybox()
    archive.add("d/" * 1500 + "file", b"deep")
    box = imported(archive.bytes())
    assert text(box, "sh", "-c", f"cd /{'d/' * 700} && cat {'d/' * 800}file") == "deep"


def test_gzip_of_many_members_is_the_same(archive: Archive, imported: Imported) -> None:
    archive.busybox()
    archive.add("big", random.Random(1).randbytes(40 << 20))
    data = archive.bytes()
    members = b"".join(gzip.compress(data[at : at + (1 << 20)], 1) for at in range(0, len(data), 1 << 20))
    assert text(imported(members), "sh", "-c", "wc -c </big").strip() == str(40 << 20)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flag", "data"), [(tarfile.REGTYPE, b""), (tarfile.REGTYPE, b"x"), (tarfile.DIRTYPE, b"")], ids=str
)
def test_very_many_small_entries_get_the_room_that_they_need(
    archive: Archive, imported: Imported, flag: bytes, data: bytes
) -> None:
    archive.busybox()
    for number in range(12_000):
        archive.add(f"many/{number}", data, type=flag)
    assert text(imported(archive.bytes()), "sh", "-c", "ls /many | wc -l").strip() == "12000"


def test_directories_that_are_only_in_names_are_refused_when_they_need_too_much(client: Client) -> None:
    names = b"".join(header("/".join(f"{number:05}" + "d" * 44)) for number in range(1000))
    assert "far more room" in str(refused(client, names + bytes(1024)))


def test_a_declared_size_beyond_all_bounds_is_refused(client: Client) -> None:
    entry = tarfile.TarInfo("huge")
    entry.size = 2**50
    refused(client, entry.tobuf(tarfile.GNU_FORMAT) + b"x" * 10240)


def test_a_name_beyond_what_a_filesystem_takes_is_refused(client: Client, archive: Archive) -> None:
    archive.add("x" * 300, b"x")
    refused(client, archive.bytes())


def test_a_link_loop_is_refused_or_stays(client: Client, archive: Archive) -> None:
    archive.add("a", type=tarfile.SYMTYPE, linkname="b")
    archive.add("b", type=tarfile.SYMTYPE, linkname="a")
    archive.add("a/file", b"x")
    refused(client, archive.bytes())


def test_a_file_in_the_place_of_dev_is_an_error_of_the_start(
    client: Client, archive: Archive, imported: Imported
) -> None:
    archive.busybox()
    archive.add("dev", type=tarfile.SYMTYPE, linkname="/bin")
    with pytest.raises(SysprocError, match="/dev"):
        imported(archive.bytes())
    assert client.list() == []


def test_a_root_without_a_shell_starts_and_says_what_is_missing(archive: Archive, imported: Imported) -> None:
    archive.add("only", b"a file")
    result = imported(archive.bytes()).run(["/bin/sh"])
    assert result.exit_code == 127 and "/bin/sh" in result.failure


def test_a_folder_is_imported_as_it_is(client: Client, imported: Imported, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    shutil.copy(BUSYBOX, tmp_path / "bin/busybox")
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "deep/er/file").write_text("found")
    os.symlink("er/file", tmp_path / "deep/link")
    client.images.import_("hostile", tmp_path)
    box = client.create(image="hostile", size="64M")
    try:
        assert text(box, "/bin/busybox", "cat", "/deep/link") == "found"
    finally:
        box.destroy()
        client.images.delete("hostile")


class Failing:
    """A stream that fails after some bytes, as a disk or a connection does."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int) -> bytes:
        if data := self._data.read(size):
            return data
        raise OSError(errno.EIO, "the disk is broken", "source")


def test_a_source_that_fails_is_no_shorter_image(client: Client, archive: Archive) -> None:
    """It fails where the archive could end: only the client knows that it is not whole."""
    with pytest.raises(OSError, match="the disk is broken"):
        client.images.import_("hostile", Failing(good(archive)))  # type: ignore[arg-type]  # all of it that is used
    assert [image.name for image in client.images.list()] == ["busybox"]


def test_a_source_of_text_is_no_image(client: Client) -> None:
    with pytest.raises(TypeError, match="bytes"):
        client.images.import_("hostile", io.StringIO("text"))  # type: ignore[arg-type]  # what is refused
    assert [image.name for image in client.images.list()] == ["busybox"]


def unreadable(folder: Path) -> None:
    """Make a path below it that is longer than Linux takes: root may read anything else."""
    at = os.open(folder, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("z" * 250, dir_fd=at)
        at, above = os.open("z" * 250, os.O_RDONLY, dir_fd=at), at
        os.close(above)
    os.close(at)


def test_a_folder_that_cannot_be_read_whole_is_no_image(client: Client, sysproc: Sysproc, tmp_path: Path) -> None:
    (tmp_path / "first").write_bytes(bytes(2 << 20))
    unreadable(tmp_path)
    with pytest.raises(OSError) as caught:
        client.images.import_("hostile", tmp_path)
    assert caught.value.errno == errno.ENAMETOOLONG
    done = sysproc("image", "import", "hostile", str(tmp_path))
    assert done.returncode == 1 and b"too long" in done.stderr and b"Traceback" not in done.stderr
    assert [image.name for image in client.images.list()] == ["busybox"]


def test_a_folder_of_many_levels_is_imported(client: Client, sysproc: Sysproc, tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(1100):
        deep /= "d"
        os.mkdir(deep)
    done = sysproc("image", "import", "hostile", str(tmp_path))
    subprocess.run(["rm", "-r", str(tmp_path / "d")], check=True)  # pytest gives up so deep
    assert done.returncode == 0, done.stderr
    client.images.delete("hostile")


def spools(daemon: RunningDaemon) -> int:
    """How many archives are being received: files without a name, of the directory of images."""
    found = 0
    for fd in Path(f"/proc/{daemon.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found += fd.readlink().is_relative_to(daemon.state_dir / "images")
    return found


def test_a_client_that_is_killed_leaves_no_image(client: Client, daemon: RunningDaemon, archive: Archive) -> None:
    sysproc = str(Path(sys.executable).with_name("sysproc"))
    command = [sysproc, "--endpoint", daemon.endpoint, "image", "import", "new", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as importing:
        assert importing.stdin is not None
        importing.stdin.write(good(archive) + bytes(4 << 20))
        wait_until(lambda: spools(daemon) == 1, "the archive is received")
        importing.kill()
    wait_until(lambda: spools(daemon) == 0, "nothing of it is left")
    assert [image.name for image in client.images.list()] == ["busybox"]


def incompatible_features(vsf: Path) -> int:
    """Of the ext4 in the first partition (Documentation/filesystems/ext4/super.rst, s_feature_incompat)."""
    with vsf.open("rb") as file:
        file.seek((1 << 20) + 1024 + 0x60)
        return int.from_bytes(file.read(4), "little")


def test_a_finished_image_has_an_empty_journal_and_its_containers_start(
    client: Client, daemon: RunningDaemon, archive: Archive, imported: Imported
) -> None:
    """It is copied as soon as it is there, when the kernel may not have unmounted it yet."""
    archive.busybox()
    for number in range(3000):
        archive.add(f"many/{number}", random.Random(number).randbytes(20_000))
    data = archive.bytes()
    client.images.import_("hostile", io.BytesIO(data))
    image = max((daemon.state_dir / "images").glob("*.vsf"), key=lambda path: path.stat().st_size)
    assert incompatible_features(image) & NEEDS_RECOVERY == 0
    assert text(imported(data), "sh", "-c", "ls /many | wc -l").strip() == "3000"


def test_a_wrong_digest_is_refused(client: Client, archive: Archive) -> None:
    requests = [
        pb.ImportImageRequest(header=pb.ImportImageRequest.Header(name="hostile")),
        pb.ImportImageRequest(data=good(archive)),
        pb.ImportImageRequest(trailer=pb.ImportImageRequest.Trailer(digest=b"x" * 32)),
    ]
    stub = client.images._stub
    with pytest.raises(SysprocError, match="digest"):
        list(client._connection.stream(stub.ImportImage(iter(requests))))
    assert [image.name for image in client.images.list()] == ["busybox"]


def test_an_image_in_use_is_not_deleted_and_an_unknown_one_not_found(client: Client) -> None:
    box = client.create(image="busybox")
    with pytest.raises(FailedPrecondition, match="busybox"):
        client.images.delete("busybox")
    box.destroy()
    with pytest.raises(NotFound):
        client.images.delete("nosuch")
    with pytest.raises(InvalidArgument):
        client.images.import_("../evil", io.BytesIO(b""))
