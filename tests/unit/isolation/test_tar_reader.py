"""Tars read strictly: what any archiver wrote is read as it is, and of what is broken nothing is taken silently.

The standard library and GNU tar write the archives; hypothesis breaks them. What becomes of entries in a filesystem
is in tests/kernel/isolation/test_unpack.py, the whole way through the service in tests/e2e/test_images.py.
"""

import errno
import io
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysproc.isolation.tar_headers import Kind
from sysproc.isolation.tar_reader import MAX_EXTENDED_BYTES, Entry, TarReader
from tests.archives import FORMATS, Archive, header, pax

NAMES = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=120).filter(
    lambda name: name not in (".", "..")
)


@dataclass(frozen=True)
class Read:
    """An entry with its data."""

    entry: Entry
    data: bytes


def read(archive: bytes) -> list[Read]:
    """All entries; OSError."""
    reader = TarReader(io.BytesIO(archive))
    found = []
    for entry in reader:
        contents = bytearray(entry.size if entry.size < 1 << 24 else 0)
        for offset, length in entry.segments:
            contents[offset : offset + length] = b"".join(reader.data(length))
        found.append(Read(entry, bytes(contents)))
    return found


def read_or_refused(archive: bytes) -> list[Read] | None:
    """All entries, or None if it is broken."""
    try:
        return read(archive)
    except OSError as failure:
        if failure.errno != errno.EBADMSG:
            raise
        return None


def refused(archive: bytes) -> str:
    """The words for an archive that is broken."""
    with pytest.raises(OSError) as caught:
        read(archive)
    assert caught.value.errno == errno.EBADMSG
    return str(caught.value.filename)


def some_archive(kind: int = tarfile.PAX_FORMAT) -> bytes:
    """Entries of all kinds, some with extended headers."""
    archive = Archive(kind)
    archive.add("directory/", type=tarfile.DIRTYPE, mode=0o755)
    archive.add("directory/file", b"contents" * 100, mtime=1_700_000_000)
    archive.add("long/" * 30 + "name", b"x")
    archive.add("link", type=tarfile.SYMTYPE, linkname="target" * (16 if kind == tarfile.USTAR_FORMAT else 40))
    archive.add("again", type=tarfile.LNKTYPE, linkname="directory/file")
    archive.add("last", b"end")
    return archive.bytes()


@settings(deadline=None)
@given(st.sampled_from(FORMATS), st.dictionaries(NAMES, st.binary(max_size=2000), max_size=8))
def test_whatever_is_written_is_read(kind: int, files: dict[str, bytes]) -> None:
    archive = Archive(kind)
    written = {}
    for name, data in files.items():
        try:
            archive.add(name, data)
        except ValueError:  # too long for ustar
            continue
        written[name.encode()] = data
    assert {one.entry.name: one.data for one in read(archive.bytes())} == written


@pytest.mark.parametrize("kind", FORMATS)
def test_every_field_is_read(kind: int) -> None:
    archive = Archive(kind)
    archive.add("file", b"x", uid=1000, gid=65535, mode=0o4755, mtime=12345)
    entry = read(archive.bytes())[0].entry
    assert (entry.kind, entry.uid, entry.gid, entry.mode, entry.mtime_ns) == (
        Kind.FILE,
        1000,
        65535,
        0o4755,
        12345 * 10**9,
    )


def test_kinds_are_told_apart() -> None:
    archive = Archive()
    kinds = {
        tarfile.DIRTYPE: Kind.DIRECTORY,
        tarfile.SYMTYPE: Kind.SYMLINK,
        tarfile.LNKTYPE: Kind.HARD_LINK,
        tarfile.FIFOTYPE: Kind.FIFO,
        tarfile.CHRTYPE: Kind.DEVICE,
        tarfile.BLKTYPE: Kind.DEVICE,
        tarfile.CONTTYPE: Kind.FILE,
    }
    for number, flag in enumerate(kinds):
        archive.add(str(number), type=flag)
    assert [one.entry.kind for one in read(archive.bytes())] == list(kinds.values())


@settings(deadline=None)
@given(st.integers(-(2**62), 2**62))
def test_times_keep_their_nanoseconds_before_1970_too(time_ns: int) -> None:
    sign, (seconds, fraction) = "-" * (time_ns < 0), divmod(abs(time_ns), 10**9)
    archive = pax({"mtime": f"{sign}{seconds}.{fraction:09}"}) + header("file") + bytes(1024)
    assert read(archive)[0].entry.mtime_ns == time_ns


@pytest.mark.parametrize("time", ["inf", "nan", "1e30", "-inf", "9" * 19, "1" * 40, "now", "1_0"])
def test_a_time_that_is_none_is_refused(time: str) -> None:
    assert "time" in refused(pax({"mtime": time}) + header("file") + bytes(1024))


@pytest.mark.parametrize("kind", FORMATS)
def test_an_archive_cut_at_any_block_is_refused(kind: int) -> None:
    whole = some_archive(kind)
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 1024
    for cut in range(0, end + 512, 512):
        assert "truncated" in refused(whole[:cut]) or cut == 0
    assert len(read(whole[: end + 512])) == 6


def test_an_archive_without_its_end_is_truncated() -> None:
    assert "truncated" in refused(header("file"))
    assert "truncated" in refused(header("file") + bytes(512))
    assert [one.entry.name for one in read(header("file") + bytes(1024))] == [b"file"]


@settings(deadline=None)
@given(st.sampled_from(FORMATS), st.data())
def test_a_flipped_bit_costs_no_entry_silently(kind: int, data: st.DataObject) -> None:
    """Either all entries are there, or it is refused: nothing is left out after the place that is broken."""
    whole = bytearray(some_archive(kind))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    found = read_or_refused(bytes(whole))
    assert found is None or len(found) == 6


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.binary(min_size=512, max_size=512)), max_size=6))
def test_blocks_of_anything_are_an_answer(blocks: list[tuple[int, bytes]]) -> None:
    whole = some_archive()
    for number, block in blocks:
        whole = whole[: number * 512] + block + whole[number * 512 + 512 :]
    read_or_refused(whole)


@settings(deadline=None)
@given(st.binary(max_size=3000))
def test_any_bytes_are_an_answer(anything: bytes) -> None:
    refused(anything + b"x")


FIELDS = {"name": 0, "mode": 100, "uid": 108, "size": 124, "mtime": 136, "type": 156, "link": 157, "sparse": 386}


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([*b"0\x001234567xgXLKSVDMN"]),
            st.sampled_from(sorted(FIELDS)),
            st.binary(max_size=24),
            st.binary(max_size=600),
        ),
        max_size=5,
    )
)
def test_headers_with_right_checksums_and_anything_in_them_are_an_answer(
    parts: list[tuple[int, str, bytes, bytes]],
) -> None:
    archive = b""
    for flag, field, value, data in parts:
        archive += header("file", data, flag=bytes([flag]), at=FIELDS[field], value=value)
    read_or_refused(archive + bytes(1024))


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([
    "path", "linkpath", "size", "uid", "gid", "mtime", "GNU.sparse.major", "GNU.sparse.minor", "GNU.sparse.realsize",
    "GNU.sparse.map", "GNU.sparse.name", "GNU.sparse.size", "GNU.sparse.offset", "GNU.sparse.numbytes",
    "SCHILY.xattr.user.a", "SCHILY.acl.access", "RHT.security.selinux", "hdrcharset",
]), st.text(st.sampled_from("0123456789-.e\0/\n aé"), max_size=8)), st.binary(max_size=600))  # fmt: skip
def test_pax_headers_with_anything_in_them_are_an_answer(fields: dict[str, str], data: bytes) -> None:
    read_or_refused(pax(fields) + header("file", data) + bytes(1024))


def test_a_broken_header_in_the_middle_is_refused() -> None:
    archive = some_archive()
    at = archive.rindex(b"last")
    assert f"at byte {at}" in refused(archive[:at] + b"LAST" + archive[at + 4 :])


def test_zeros_in_the_middle_are_refused() -> None:
    archive = some_archive()
    at = archive.rindex(b"last")
    assert "lone block" in refused(archive[:at] + bytes(512) + archive[at + 512 :])
    assert "follows" in refused(archive[:at] + bytes(1024) + archive[at:])


@pytest.mark.parametrize("flag", [b"L", b"K", b"x", b"g"])
def test_any_number_of_extended_headers_is_refused_and_not_recursed_into(flag: bytes) -> None:
    assert "headers" in refused(header("again", flag=flag) * 5000 + header("file") + bytes(1024))


@pytest.mark.parametrize("flag", [b"L", b"K", b"x", b"g", b"X"])
def test_an_extended_header_of_gigabytes_is_refused_before_it_is_read(flag: bytes) -> None:
    huge = header("huge", flag=flag, at=124, value=b"\x80" + (3 << 30).to_bytes(11, "big"))
    assert str(MAX_EXTENDED_BYTES) in refused(huge + bytes(1024))


def test_global_headers_are_bounded_all_together() -> None:
    archive = b"".join(
        pax({f"SCHILY.xattr.user.{number}": "x" * 100_000}, flag=b"g") + header("file") for number in range(20)
    )
    assert "global" in refused(archive + bytes(1024))


def test_a_global_header_holds_until_another_says_otherwise() -> None:
    archive = (
        pax({"uid": "7"}, flag=b"g") + header("one") + pax({"uid": "8"}) + header("two") + header("three") + bytes(1024)
    )
    assert [one.entry.uid for one in read(archive)] == [7, 8, 7]


def test_a_header_of_an_entry_that_is_not_there_is_refused() -> None:
    assert "not there" in refused(pax({"path": "lost"}) + bytes(1024))


def test_times_that_gnu_tar_writes_in_the_place_of_the_prefix_are_no_part_of_the_name() -> None:
    entry = header("file", at=257, value=b"ustar  \0".ljust(88, b"\0") + b"14746500000\0" + b"14746500000\0")
    assert read(entry + bytes(1024))[0].entry.name == b"file"


def test_a_negative_size_is_refused() -> None:
    assert "size" in refused(header("file", at=124, value=b"\xff" * 12) + bytes(1024))


def test_extended_attributes_are_bytes_and_may_be_empty() -> None:
    archive = Archive()
    headers = {"SCHILY.xattr.user.raw": b"\xff\x00\n=".decode("utf-8", "surrogateescape"), "SCHILY.xattr.user.no": ""}
    archive.add("file", pax_headers=headers)
    assert read(archive.bytes())[0].entry.attributes == {b"user.raw": b"\xff\x00\n=", b"user.no": b""}


SPARSE = {0: b"start", 200_000: b"middle" * 1000, 900_000: b"x" * 70_000}


@pytest.fixture
def sparse_file(tmp_path: Path) -> Path:
    """A file with holes, also at its end."""
    file = tmp_path / "sparse"
    with file.open("wb") as opened:
        for offset, data in SPARSE.items():
            opened.seek(offset)
            opened.write(data)
        opened.truncate(5_000_000)
    return file


Tar = Callable[..., bytes]


def tar_version() -> bytes:
    """What it says of itself."""
    return subprocess.run(["tar", "--version"], capture_output=True, check=False).stdout


@pytest.fixture
def gnu_tar(sparse_file: Path) -> Tar:
    """What GNU tar makes of the sparse file."""
    if shutil.which("tar") is None or b"GNU" not in tar_version():
        pytest.skip("there is no GNU tar")

    def tar(*options: str) -> bytes:
        command = ["tar", "-cf", "-", "--sparse", *options, "-C", str(sparse_file.parent), sparse_file.name]
        return subprocess.run(command, check=True, capture_output=True).stdout

    return tar


SPARSE_FORMATS = [("--format=gnu",), *(("--format=posix", f"--sparse-version={one}") for one in ("0.0", "0.1", "1.0"))]


@pytest.mark.parametrize("options", SPARSE_FORMATS)
def test_sparse_files_of_gnu_tar_are_read_with_their_holes(
    gnu_tar: Tar, sparse_file: Path, options: tuple[str, ...]
) -> None:
    found = read(gnu_tar(*options))[0]
    assert (found.entry.name, found.data) == (b"sparse", sparse_file.read_bytes())
    assert sum(length for _, length in found.entry.segments) < 200_000


def test_a_sparse_format_of_the_future_is_refused_with_what_to_do() -> None:
    fields = {"GNU.sparse.major": "2", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1"}
    assert "--sparse" in refused(pax(fields) + header("file", b"x") + bytes(1024))


@pytest.mark.parametrize("map", ["0,5,5", "1,x", "5,1,0,1", "0,6", "0,5,5,99999999999999999999"])
def test_a_map_in_the_header_that_is_none_is_refused(map: str) -> None:
    fields = {"GNU.sparse.size": "5", "GNU.sparse.map": map}
    assert "sparse" in refused(pax(fields) + header("file", b"hello") + bytes(1024))


def test_a_map_of_pairs_out_of_order_is_refused() -> None:
    fields = {"GNU.sparse.size": "5", "GNU.sparse.numbytes": "5", "GNU.sparse.offset": "0"}
    assert "out of order" in refused(pax(fields) + header("file", b"hello") + bytes(1024))


def test_a_map_of_very_many_pairs_is_read_in_time_that_grows_with_it() -> None:
    fields = "".join(f"{number},0," for number in range(80_000)).rstrip(",")
    archive = pax({"GNU.sparse.size": "80000", "GNU.sparse.map": fields}) + header("file") + bytes(1024)
    assert read(archive)[0].entry.size == 80_000


def test_a_sparse_file_of_many_parts_has_its_map_in_more_blocks(gnu_tar: Tar, sparse_file: Path) -> None:
    with sparse_file.open("r+b") as file:
        for number in range(60):
            file.seek(number * 65536)
            file.write(b"part")
    for options in SPARSE_FORMATS:
        assert read(gnu_tar(*options))[0].data == sparse_file.read_bytes()


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400))
def test_any_map_of_a_sparse_file_is_an_answer(change: bytes, at: int) -> None:
    fields = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1000", "GNU.sparse.name": "s"}
    area = bytearray(b"2\n0\n100\n500\n50\n".ljust(512, b"\0") + b"x" * 150)
    assert read(pax(fields) + header("s", bytes(area)) + bytes(1024))[0].data[500:550] == b"x" * 50
    area[at : at + len(change)] = change
    read_or_refused(pax(fields) + header("s", bytes(area)) + bytes(1024))
