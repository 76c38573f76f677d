"""A decrypted file whose encrypted area has become larger: told to look, its process shows what is new."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sysproc.linux.loop import loop_set_capacity
from sysproc.storage.decrypted.opening import Decrypted
from sysproc.storage.decrypted.process import WIDEN
from sysproc.storage.luks.region import Region
from sysproc.storage.luks.volume import format_volume
from sysproc.storage.vsf.clone import fresh_vsf, grow_table_in_use
from sysproc.storage.vsf.gpt import single_partition
from tests.kernel.storage.open_volume import CHEAP, SECRET, decrypted_file, disk, needs_fuse
from tests.waiting import wait_until

MIB = 1 << 20
HEADER = 16 * MIB
pytestmark = needs_fuse


@contextmanager
def file_of(path: Path, size: int) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, size)
        yield fd
    finally:
        os.close(fd)


def widen(decrypted: Decrypted, device_fd: int, size: int) -> None:
    os.kill(decrypted.pid, WIDEN)
    wait_until(lambda: loop_set_capacity(device_fd) == size, "the device is as large as what is decrypted")


def test_a_whole_file_that_is_longer_is_shown_longer(tmp_path: Path) -> None:
    head, tail = os.urandom(MIB), os.urandom(MIB)
    with file_of(tmp_path / "volume", 64 * MIB) as fd:
        format_volume(Region.whole(fd), memoryview(SECRET), cost=CHEAP)
        with disk(Region.whole(fd)) as opened:
            os.pwrite(opened.device_fd, head, 47 * MIB)
            assert loop_set_capacity(opened.device_fd) == 48 * MIB
            os.ftruncate(fd, 128 * MIB)
            widen(opened.decrypted, opened.device_fd, 112 * MIB)
            os.pwrite(opened.device_fd, tail, 111 * MIB)
            os.fsync(opened.device_fd)
            os.posix_fadvise(opened.device_fd, 0, 0, os.POSIX_FADV_DONTNEED)
            assert os.pread(opened.device_fd, MIB, 111 * MIB) == tail
        with decrypted_file(Region.whole(fd)) as again:
            assert again.size == 112 * MIB
            assert (os.pread(again.fd, MIB, 47 * MIB), os.pread(again.fd, MIB, 111 * MIB)) == (head, tail)
        assert tail not in (tmp_path / "volume").read_bytes()


def encrypted_partition(fd: int) -> Region:
    """The only one of a new disk of 64 MiB."""
    gpt = single_partition(64 * MIB)
    fresh_vsf(fd, gpt)
    area = Region(fd, gpt.partitions[0].offset_bytes, gpt.partitions[0].size_bytes)
    format_volume(area, memoryview(SECRET), cost=CHEAP)
    return area


def test_a_partition_is_as_large_as_its_table_says_by_now(tmp_path: Path) -> None:
    with file_of(tmp_path / "volume", 0) as fd:
        area = encrypted_partition(fd)
        with disk(area) as opened:
            before = loop_set_capacity(opened.device_fd)
            assert before == area.size - HEADER
            grow_table_in_use(fd, 96 * MIB)
            assert loop_set_capacity(opened.device_fd) == before, "nobody has told it yet"
            widen(opened.decrypted, opened.device_fd, before + 32 * MIB)


def test_a_table_that_cannot_be_read_leaves_it_as_it_is(tmp_path: Path) -> None:
    with file_of(tmp_path / "volume", 0) as fd:
        area = encrypted_partition(fd)
        with disk(area) as opened:
            before = loop_set_capacity(opened.device_fd)
            for at in (512, 64 * MIB - 512):
                os.pwrite(fd, bytes(512), at)
            for number in (WIDEN, signal.SIGTERM, WIDEN):
                os.kill(opened.decrypted.pid, number)
            os.pwrite(opened.device_fd, b"still here", 0)
            os.fsync(opened.device_fd)
            assert loop_set_capacity(opened.device_fd) == before
