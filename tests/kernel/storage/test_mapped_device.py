"""A volume opened by dm-crypt: the device is there as long as something uses it, and nothing else is left to end."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from sysproc.errors import FailedPrecondition
from sysproc.linux.device_mapper import DeviceMapper, device_path, is_device_path, mapped_uuid, mapped_uuids, why_not
from sysproc.linux.files import f_ofd_getlk
from sysproc.linux.loop import loops_backed_by
from sysproc.storage.decrypted.mapped import name_of, widen_mapped
from sysproc.storage.decrypted.opening import Decrypted, by_device, start
from sysproc.storage.decrypted.sectors import data_size
from sysproc.storage.luks.region import Region
from sysproc.storage.luks.volume import open_volume, unlock
from tests.kernel.storage.open_volume import BEFORE, SECRET, decrypted_file, ended, needs_fuse, pipe_with, volume_file
from tests.waiting import wait_until

REASON = why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"no dm-crypt here: {REASON}")
CALLED = "sysproc:00c0ffee00c0ffee:1:2:0"


def opened(region: Region, called: str = CALLED) -> Decrypted:
    reader = pipe_with(SECRET)
    try:
        return start(region, reader, way=by_device(called))
    finally:
        os.close(reader)


@contextmanager
def device(region: Region) -> Iterator[Decrypted]:
    """Open, its process ended; gone afterwards."""
    decrypted = opened(region)
    assert ended(decrypted.pid) == 0
    try:
        yield decrypted
    finally:
        os.close(decrypted.fd)
        wait_until(lambda: not is_locked(region), "it goes with its last use")


def is_locked(region: Region) -> bool:
    return f_ofd_getlk(region.fd, region.offset, region.size)


def path_of(decrypted: Decrypted) -> str:
    return device_path(os.minor(os.fstat(decrypted.fd).st_rdev))


@needs_fuse
@pytest.mark.parametrize("sector_size", [512, 4096])
def test_what_one_writes_the_other_reads(tmp_path: Path, sector_size: int) -> None:
    data = os.urandom(3 << 20)
    with volume_file(tmp_path / "volume", sector_size) as region:
        with device(region) as mapped:
            assert mapped.size == os.lseek(mapped.fd, 0, os.SEEK_END)
            os.pwrite(mapped.fd, data, 1 << 20)
            os.fsync(mapped.fd)
        with decrypted_file(region) as file:
            assert os.pread(file.fd, len(data), 1 << 20) == data
            os.pwrite(file.fd, data[::-1], 8 << 20)
        with device(region) as mapped:
            assert os.pread(mapped.fd, len(data), 8 << 20) == data[::-1]


def test_it_is_found_by_what_it_is_called_until_its_last_use(tmp_path: Path) -> None:
    with volume_file(tmp_path / "volume") as region:
        with device(region) as mapped:
            path = path_of(mapped)
            assert is_device_path(path) and mapped_uuid(path) == mapped_uuids()[path] == CALLED
            assert len(loops_backed_by(tmp_path / "volume")) == 1
            with pytest.raises(FailedPrecondition) as refused:
                opened(region)
            assert refused.value.reason == "VOLUME_IN_USE"
        wait_until(lambda: not loops_backed_by(tmp_path / "volume"), "its loop device is free")
        assert not mapped_uuid(path) and CALLED not in mapped_uuids().values()


def test_its_table_names_the_key_and_the_key_is_in_no_keyring(tmp_path: Path) -> None:
    with volume_file(tmp_path / "volume") as region, device(region), DeviceMapper() as mapper:
        assert f":64:logon:sysproc:{name_of(region)}" in mapper.table(name_of(region))
        assert name_of(region) not in Path("/proc/keys").read_text()


def test_one_whose_maker_was_killed_before_it_was_open_is_in_nobodys_way(tmp_path: Path) -> None:
    with volume_file(tmp_path / "volume") as region, DeviceMapper() as mapper:
        mapper.create(name_of(region), CALLED)
        assert CALLED not in mapped_uuids().values()
        with device(region) as mapped:
            assert mapped_uuid(path_of(mapped)) == CALLED


def test_an_area_that_is_longer_is_shown_longer_to_who_has_the_device_open(tmp_path: Path) -> None:
    more, data = 32 << 20, os.urandom(1 << 20)
    with volume_file(tmp_path / "volume") as region, device(region) as mapped:
        os.ftruncate(region.fd, BEFORE + region.size + more)
        wider = Region(region.fd, region.offset, region.size + more)
        segment = open_volume(wider).metadata.segment
        with unlock(wider, open_volume(wider), memoryview(SECRET)).key as key:
            widen_mapped(wider, segment, data_size(wider, segment), key.view)
        assert os.lseek(mapped.fd, 0, os.SEEK_END) == mapped.size + more
        os.pwrite(mapped.fd, data, mapped.size + more - len(data))
        os.fsync(mapped.fd)
        os.posix_fadvise(mapped.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(mapped.fd, len(data), mapped.size + more - len(data)) == data


LOOKING = """
import os, sys
from sysproc.linux.device_mapper import device_path, mapped_uuid
print("looking", flush=True)
while os.getppid() == int(sys.argv[1]) and not os.path.exists(sys.argv[2]):
    mapped_uuid(device_path(int(sys.argv[3])))
"""


def test_devices_that_go_while_they_are_looked_at_are_none(tmp_path: Path) -> None:
    """The kernel says EIO of one whose name is taken back, EINVAL of one that is being freed."""
    enough = tmp_path / "enough"
    with ExitStack() as stack, DeviceMapper() as mapper:
        minor = come_and_go(mapper)
        arguments = [sys.executable, "-c", LOOKING, str(os.getpid()), str(enough), str(minor)]
        lookers = [stack.enter_context(subprocess.Popen(arguments, stdout=subprocess.PIPE)) for _ in range(2)]
        stack.callback(enough.touch)
        for looker in lookers:
            assert looker.stdout is not None and looker.stdout.readline() == b"looking\n"
        for _ in range(300):
            come_and_go(mapper)
    assert [looker.returncode for looker in lookers] == [0, 0]


def come_and_go(mapper: DeviceMapper) -> int:
    """A device for a moment; its minor."""
    _, minor = mapper.create("sysproc-test-going", CALLED)
    mapper.load_nothing("sysproc-test-going", 1 << 20)
    mapper.resume("sysproc-test-going")
    wait_until(lambda: is_removed(mapper), "nobody else looks at it")
    return minor


def is_removed(mapper: DeviceMapper) -> bool:
    """udev may have it open for a moment."""
    try:
        mapper.remove("sysproc-test-going")
    except OSError as failure:
        if failure.errno != errno.EBUSY:
            raise
        return False
    return True
