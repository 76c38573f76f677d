"""What is counted in a tar while it comes in is what is in it, however it is cut and compressed."""

import gzip
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysproc import tar_counter
from sysproc.archive_size import ArchiveCounter
from sysproc.isolation.tar_headers import checksum_is_right
from sysproc.tar_counter import TarCounter, TarCounts
from tests.archives import FORMATS, Archive, header


def counted(stream: bytes, chunk: int) -> TarCounts | None:
    """When it comes in chunks."""
    counter = TarCounter()
    for at in range(0, len(stream), chunk):
        counter.feed(stream[at : at + chunk])
    return counter.counts


@settings(deadline=None)
@given(st.sampled_from(FORMATS), st.lists(st.integers(0, 20_000), max_size=8), st.integers(1, 5000))
def test_files_links_and_directories_are_counted(kind: int, sizes: list[int], chunk: int) -> None:
    archive = Archive(kind)
    for number, size in enumerate(sizes):
        archive.add(f"{'long/' * 20 * (number % 2)}{number}", bytes(size))
        archive.add(f"d{number}", type=tarfile.DIRTYPE)
        archive.add(f"l{number}", type=tarfile.SYMTYPE, linkname="x" * (250 if kind != tarfile.USTAR_FORMAT else 90))
        archive.add(f"h{number}", type=tarfile.LNKTYPE, linkname=str(number))
    blocks = sum(-(-size // 4096) for size in sizes) + 2 * len(sizes)
    assert counted(archive.bytes(), chunk) == TarCounts(4 * len(sizes), blocks)


def test_of_what_is_compressed_what_is_in_it_counts() -> None:
    archive = Archive()
    archive.add("file", bytes(5000))
    counter = ArchiveCounter(TarCounter())
    list(counter.feed(gzip.compress(archive.bytes())))
    assert counter.tar == TarCounts(1, 2)


@pytest.mark.parametrize("options", [["--format=gnu"], ["--format=posix"]], ids=str)
def test_sparse_files_count_what_is_stored(tmp_path: Path, options: list[str]) -> None:
    if shutil.which("tar") is None:
        pytest.skip("there is no tar")
    with (tmp_path / "sparse").open("wb") as file:
        for number in range(100):
            file.seek(number * 65536)
            file.write(b"part" * 1024)
        file.truncate(1 << 30)
    (tmp_path / "zz").write_text("after it")
    command = ["tar", "-c", "--sparse", *options, "-C", str(tmp_path), "sparse", "zz"]
    found = counted(subprocess.run(command, check=True, capture_output=True).stdout, 1000)
    assert found is not None and found.entries == 2 and 100 <= found.blocks <= 105


@settings(deadline=None)
@given(st.binary(max_size=2000), st.integers(1, 600))
def test_what_is_no_tar_is_not_counted(anything: bytes, chunk: int) -> None:
    assert counted(header("file") + b"x" * 512 + anything, chunk) is None


@pytest.mark.parametrize("chunk", [100, 512, 5000])
def test_nothing_is_looked_at_after_the_end(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[bytes] = []
    whole = header("file") + bytes(1024)

    def look(block: bytes) -> bool:
        looked.append(block)
        return checksum_is_right(block)

    monkeypatch.setattr(tar_counter, "checksum_is_right", look)
    assert counted(whole + header("after it") * 10 + b"rubbish" * 1000, chunk) == TarCounts(1, 0)
    assert looked == [whole[:512]]


def test_zeros_after_the_end_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_counter, "MOST_BLOCKS", 3)
    assert counted(header("file") + bytes(1024) + bytes(1 << 20), 1 << 16) == TarCounts(1, 0)


def test_very_many_headers_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_counter, "MOST_BLOCKS", 100)
    assert counted(header("file", bytes(100_000)) * 100, 5000) == TarCounts(100, 100 * 25)
    assert counted(header("file") * 101, 5000) is None


def test_the_map_of_a_sparse_file_counts_as_headers_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_counter, "MOST_BLOCKS", 100)
    more = bytes(504) + b"\1" + bytes(7)
    assert counted(header("file", flag=b"S", at=482, value=b"\1") + more * 100, 5000) is None
