"""How large an archive is without its compression, and how large a filesystem is made for it."""

import gzip
import lzma
from collections.abc import Callable
from itertools import pairwise

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from sysproc import archive_size
from sysproc.archive_size import INODE_BYTES, ROOMS, STEP_BYTES, ArchiveCounter, mke2fs_inodes, rooms_for
from sysproc.errors import InvalidArgument
from sysproc.tar_counter import TarCounts
from sysproc.unzstd import SLICE_BYTES


def counted(stream: bytes, chunk: int) -> int:
    """What the counter says when the stream comes in chunks."""
    counter = ArchiveCounter()
    for at in range(0, len(stream), chunk):
        list(counter.feed(stream[at : at + chunk]))
    return counter.unpacked_bytes


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "zstd": zstandard.compress,
}
packers = pytest.mark.parametrize("packer", PACKERS)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=5000), min_size=1, max_size=6), st.integers(1, 3000), st.integers(0, 700))
def test_all_members_of_a_gzip_stream_count(parts: list[bytes], chunk: int, zeros: int) -> None:
    stream = b"".join(gzip.compress(part) + bytes(zeros) for part in parts)
    assert gzip.decompress(stream) == b"".join(parts)
    assert counted(stream, chunk) == sum(map(len, parts))


@settings(deadline=None)
@given(st.lists(st.binary(max_size=5000), min_size=1, max_size=6), st.integers(1, 3000), st.integers(0, 100))
def test_all_streams_of_xz_count(parts: list[bytes], chunk: int, words: int) -> None:
    stream = b"".join(lzma.compress(part) + bytes(4 * words) for part in parts)
    assert counted(stream, chunk) == sum(map(len, parts))


@settings(deadline=None)
@given(st.lists(st.binary(max_size=5000), min_size=1, max_size=6), st.integers(1, 3000))
def test_all_frames_of_zstd_count(parts: list[bytes], chunk: int) -> None:
    assert counted(b"".join(zstandard.compress(part) for part in parts), chunk) == sum(map(len, parts))


@packers
def test_a_member_that_unpacks_to_very_much_counts_whole(packer: str) -> None:
    stream = b"".join(PACKERS[packer](data) for data in (b"start", bytes(50 << 20), b"end"))
    assert counted(stream, 1 << 20) == (50 << 20) + 8


@packers
def test_what_unpacks_to_very_much_is_counted_step_by_step(packer: str) -> None:
    counter = ArchiveCounter()
    sizes = [counter.unpacked_bytes for _ in counter.feed(PACKERS[packer](bytes(70 << 20)))]
    most = STEP_BYTES + SLICE_BYTES // 4 * (128 << 10)
    assert counter.unpacked_bytes == 70 << 20
    assert all(after - before <= most for before, after in pairwise([0, *sizes, 70 << 20]))


def test_a_plain_stream_counts_as_it_is() -> None:
    assert counted(b"plain" * 1000, 700) == 5000


@packers
def test_a_broken_stream_counts_and_is_refused_later(packer: str) -> None:
    stream = PACKERS[packer](bytes(range(256)) * 100)
    assert counted(stream + b"rubbish" * 100, 100) >= 25_600 + 600
    assert counted(b"\x1f, which is no gzip" * 100, 1) >= 1800


@packers
def test_what_unpacks_to_more_than_any_root_is_refused_at_once(packer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_size, "MAX_ROOT_BYTES", 1 << 20)
    with pytest.raises(InvalidArgument, match="too large"):
        counted(PACKERS[packer](bytes(64 << 20)), 512)


BLOCK = 4096


@settings(deadline=None)
@given(st.integers(0, 1 << 38))
def test_each_room_is_larger_and_the_last_takes_the_worst_of_archives(tar_bytes: int) -> None:
    sizes = [room.image_bytes(tar_bytes) for room in ROOMS]
    assert sizes == sorted(sizes)
    directories = tar_bytes // 512
    inodes = ROOMS[-1].inodes(tar_bytes)
    assert inodes is not None and inodes >= directories
    assert sizes[-1] >= directories * (BLOCK + INODE_BYTES)


@settings(deadline=None)
@given(st.integers(0, 1 << 38))
def test_each_room_has_more_inodes(tar_bytes: int) -> None:
    first = ROOMS[0].image_bytes(tar_bytes)
    inodes = [first // (4096 if first < 512 << 20 else 16384), *(room.inodes(tar_bytes) or 0 for room in ROOMS[1:])]
    assert inodes == sorted(inodes)


COUNTS = st.builds(TarCounts, st.integers(0, 1 << 24), st.integers(0, 1 << 50))


@settings(deadline=None)
@given(st.integers(0, 1 << 38), st.none() | COUNTS)
def test_the_rooms_to_be_tried_get_larger_and_end_with_the_last(tar_bytes: int, counts: TarCounts | None) -> None:
    rooms = rooms_for(tar_bytes, counts)
    sizes = [room.image_bytes(tar_bytes) for room in rooms]
    assert sizes == sorted(sizes) and sizes[0] >= ROOMS[0].image_bytes(tar_bytes)
    assert rooms[-1] == ROOMS[-1] or counts is not None


@settings(deadline=None)
@given(st.integers(0, 1 << 20), st.integers(0, 1 << 22))
def test_a_counted_room_takes_what_was_counted(files: int, directories: int) -> None:
    """A tar has a header for each, and a block or more for each file that is not empty."""
    counts = TarCounts(files + directories, files + directories)
    room = rooms_for((files * 2 + directories) * 512, counts)[0]
    size = room.image_bytes((files * 2 + directories) * 512)
    inodes = room.inodes((files * 2 + directories) * 512) or mke2fs_inodes(size)
    assert inodes >= counts.entries
    assert size >= counts.blocks * BLOCK + counts.entries * INODE_BYTES + (inodes - counts.entries) * INODE_BYTES // 16


def test_headers_that_lie_about_sizes_make_no_room_larger_than_what_has_come() -> None:
    lies = TarCounts(entries=1, blocks=1 << 40)
    assert rooms_for(10_000, lies)[0].image_bytes(10_000) == ROOMS[0].image_bytes(10_000)


def test_a_room_beyond_all_roots_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="too large"):
        ROOMS[-1].image_bytes(1 << 42)


@pytest.mark.parametrize("counts", [None, TarCounts(10, 10)], ids=str)
@pytest.mark.parametrize("tar_bytes", [2 << 40, 4 << 40, 8 << 40, 12 << 40])
def test_a_large_archive_has_the_rooms_that_a_root_may_have(tar_bytes: int, counts: TarCounts | None) -> None:
    sizes = [room.image_bytes(tar_bytes) for room in rooms_for(tar_bytes, counts)]
    assert sizes and sizes == sorted(sizes) and sizes[-1] <= archive_size.MAX_ROOT_BYTES


@pytest.mark.parametrize("counts", [None, TarCounts(10, 10)], ids=str)
def test_an_archive_that_no_root_takes_is_refused(counts: TarCounts | None) -> None:
    with pytest.raises(InvalidArgument, match="too large"):
        rooms_for(15 << 40, counts)[0].image_bytes(15 << 40)
