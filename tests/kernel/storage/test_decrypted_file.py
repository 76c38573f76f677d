"""The decrypted file of an open volume: what is written is read, by any size, and nothing else can be done with it."""

import errno
import mmap
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sysproc.linux.files import punch_hole
from sysproc.storage.luks.refusals import NotEncrypted, WrongKey
from sysproc.storage.luks.region import Region
from sysproc.storage.luks.volume import change_key
from tests.kernel.storage.open_volume import (
    CHEAP,
    DATA_BYTES,
    SECRET,
    decrypted_file,
    disk,
    ended,
    needs_fuse,
    opened,
    pipe_with,
    volume_file,
)

pytestmark = needs_fuse


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_what_is_written_is_read_back_also_after_it_was_closed(tmp_path: Path, sector_size: int) -> None:
    rng = random.Random(sector_size)
    with volume_file(tmp_path / "volume", sector_size) as region:
        with decrypted_file(region) as decrypted:
            assert (decrypted.size, decrypted.sector_size) == (DATA_BYTES, sector_size)
            model = bytearray(read_whole(decrypted.fd))
            for _ in range(100):
                length = rng.choice((1, 2, 7, 64, 300, 600)) * sector_size
                at = rng.randrange((DATA_BYTES - length) // sector_size) * sector_size
                data = rng.randbytes(length)
                assert os.pwrite(decrypted.fd, data, at) == length
                model[at : at + length] = data
            for _ in range(100):
                at, length = rng.randrange(DATA_BYTES), rng.randrange(1 << 21)
                assert os.pread(decrypted.fd, length, at) == model[at : at + length]
            assert read_whole(decrypted.fd) == model
        with decrypted_file(region) as decrypted:
            assert read_whole(decrypted.fd) == model


def read_whole(fd: int) -> bytes:
    return b"".join(os.pread(fd, 1 << 20, at) for at in range(0, DATA_BYTES, 1 << 20))


def test_many_threads_read_and_write_at_once(tmp_path: Path) -> None:
    def work(number: int) -> bool:
        rng, at = random.Random(number), number * (1 << 20)
        for _ in range(20):
            data = rng.randbytes(1 << 20)
            os.pwrite(decrypted.fd, data, at)
            if os.pread(decrypted.fd, 1 << 20, at) != data:
                return False
        return True

    with (
        volume_file(tmp_path / "volume") as region,
        decrypted_file(region) as decrypted,
        ThreadPoolExecutor(16) as threads,
    ):
        assert all(threads.map(work, range(16)))


@pytest.mark.parametrize(("at", "length"), [(1, 4096), (0, 100), (4096, 4097), (4000, 200), (DATA_BYTES - 1, 1)])
def test_parts_of_sectors_are_written_and_what_is_beside_them_stays(tmp_path: Path, at: int, length: int) -> None:
    with volume_file(tmp_path / "volume") as region, decrypted_file(region) as decrypted:
        model = bytearray(read_whole(decrypted.fd))
        data = os.urandom(length)
        assert os.pwrite(decrypted.fd, data, at) == length
        model[at : at + length] = data
        assert read_whole(decrypted.fd) == model


def test_the_two_parts_of_a_sector_may_be_written_at_once(tmp_path: Path) -> None:
    """As direct I/O does it whose memory is not aligned: the kernel cuts it where a request is full of pages."""
    data = os.urandom(4096 * 64)

    def write(at: int) -> int:
        return os.pwrite(decrypted.fd, data[at : at + 2048], at)

    with (
        volume_file(tmp_path / "volume") as region,
        decrypted_file(region) as decrypted,
        ThreadPoolExecutor(8) as threads,
    ):
        assert set(threads.map(write, range(0, len(data), 2048))) == {2048}
        assert os.pread(decrypted.fd, len(data), 0) == data


def test_nothing_is_written_behind_the_end_and_no_hole_is_made(tmp_path: Path) -> None:
    with volume_file(tmp_path / "volume") as region, decrypted_file(region) as decrypted:
        for act in (
            lambda: os.pwrite(decrypted.fd, bytes(4096), DATA_BYTES),
            lambda: os.ftruncate(decrypted.fd, 4096),
            lambda: punch_hole(decrypted.fd, 0, 4096),
        ):
            with pytest.raises(OSError) as refused:
                act()
            assert refused.value.errno in (errno.EFBIG, errno.EOPNOTSUPP)
        assert os.fstat(decrypted.fd).st_size == DATA_BYTES
        assert os.fstat(region.fd).st_size == region.offset + region.size


def test_direct_io_is_possible(tmp_path: Path) -> None:
    with volume_file(tmp_path / "volume") as region, decrypted_file(region) as decrypted:
        direct = os.open(f"/proc/self/fd/{decrypted.fd}", os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
        page = mmap.mmap(-1, 1 << 20)
        page[:] = os.urandom(1 << 20)
        os.pwritev(direct, [page], 1 << 20)
        os.close(direct)
        assert os.pread(decrypted.fd, 1 << 20, 1 << 20) == page[:]


def test_a_wrong_secret_opens_nothing_and_is_told(tmp_path: Path) -> None:
    with volume_file(tmp_path / "volume") as region:
        for wrong in (b"wrong", SECRET + b"\n", SECRET[:-1]):
            with pytest.raises(WrongKey) as refused:
                opened(region, wrong)
            assert refused.value.reason == "WRONG_SECRET" and refused.value.resolution


def test_what_is_no_volume_is_told(tmp_path: Path) -> None:
    with volume_file(tmp_path / "volume") as region, pytest.raises(NotEncrypted):
        opened(Region(region.fd, region.offset + 4096, 20 << 20))


def test_the_whole_pipe_is_the_secret(tmp_path: Path) -> None:
    """A line end is part of a key file; that it is cut from what a person typed is others' business."""
    with volume_file(tmp_path / "volume") as region:
        reader, writer = os.pipe()
        for byte in SECRET:
            os.write(writer, bytes([byte]))
        os.close(writer)
        os.close(pipe_with(b""))
        with pytest.raises(WrongKey):
            opened(region, SECRET + b"\0")
        os.close(reader)
        with decrypted_file(region):
            pass


def test_keys_are_changed_below_an_open_volume(tmp_path: Path) -> None:
    with volume_file(tmp_path / "volume") as region:
        with decrypted_file(region) as decrypted:
            os.pwrite(decrypted.fd, b"x" * 4096, 0)
            change_key(region, memoryview(SECRET), memoryview(b"another"), cost=CHEAP)
            assert os.pread(decrypted.fd, 4096, 0) == b"x" * 4096
        again = opened(region, b"another")
        assert os.pread(again.fd, 4096, 0) == b"x" * 4096
        os.close(again.fd)
        assert ended(again.pid) == 0


def test_direct_io_through_a_loop_out_of_memory_that_is_not_aligned_is_whole(tmp_path: Path) -> None:
    memory = mmap.mmap(-1, (2 << 20) + 4096)
    odd = memoryview(memory)[512 : 512 + (2 << 20)]
    odd[:] = os.urandom(2 << 20)
    with volume_file(tmp_path / "volume") as region, disk(region) as opened_disk:
        direct = os.open(opened_disk.device, os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
        try:
            assert os.pwritev(direct, [odd], 4096) == len(odd)
            odd_again = memoryview(mmap.mmap(-1, (2 << 20) + 4096))[1024 : 1024 + (2 << 20)]
            assert os.preadv(direct, [odd_again], 4096) == len(odd) and odd_again == odd
        finally:
            os.close(direct)
