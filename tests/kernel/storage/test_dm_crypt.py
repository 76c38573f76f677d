"""The same volume by dm-crypt and by our own process: both see the same data, and no table shows the key."""

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from sysproc.linux.device_mapper import KEY_KIND, CryptTable, DeviceMapper, why_not
from sysproc.linux.keyring import KEY_SPEC_THREAD_KEYRING, add_key, unlink_key
from sysproc.linux.loop import LO_FLAGS_AUTOCLEAR, loop_configure
from sysproc.storage.luks.region import Region
from sysproc.storage.luks.volume import open_volume, unlock
from tests.kernel.storage.open_volume import DATA_BYTES, SECRET, decrypted_file, needs_fuse, volume_file

REASON = why_not()
pytestmark = [needs_fuse, pytest.mark.skipif(REASON is not None, reason=f"no dm-crypt here: {REASON}")]


@contextmanager
def mapped(region: Region, name: str) -> Iterator[tuple[DeviceMapper, int]]:
    """The control device, and the decrypted one, open."""
    description = f"sysproc-test:{name}"
    segment = open_volume(region).metadata.segment
    with ExitStack() as stack:
        mapper = stack.enter_context(DeviceMapper())
        loop_fd, _ = loop_configure(region.fd, offset=region.offset, size=region.size, flags=LO_FLAGS_AUTOCLEAR)
        stack.callback(os.close, loop_fd)
        number = os.fstat(loop_fd).st_rdev
        with unlock(region, open_volume(region), memoryview(SECRET)).key as key:
            added = add_key(KEY_KIND, description, key.view, KEY_SPEC_THREAD_KEYRING)
        stack.callback(unlink_key, added, KEY_SPEC_THREAD_KEYRING)
        device = mapper.create(name, f"SYSPROC-TEST-{name}")
        stack.callback(mapper.remove, name)
        backing = (os.major(number), os.minor(number))
        table = CryptTable(DATA_BYTES, 64, description, backing, segment.offset, segment.sector_size, segment.iv_tweak)
        mapper.load_table(name, table)
        mapper.resume(name)
        yield mapper, stack.enter_context(opened_node(device))


@contextmanager
def opened_node(device: tuple[int, int]) -> Iterator[int]:
    node = Path(f"/dev/sysproc-test-{os.getpid()}")
    os.mknod(node, stat.S_IFBLK | 0o600, os.makedev(*device))
    try:
        fd = os.open(node, os.O_RDWR | os.O_CLOEXEC)
    finally:
        node.unlink()
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_what_one_writes_the_other_reads(tmp_path: Path, sector_size: int) -> None:
    data = os.urandom(3 << 20)
    with volume_file(tmp_path / "volume", sector_size) as region:
        with decrypted_file(region) as decrypted:
            os.pwrite(decrypted.fd, data, 1 << 20)
            os.fsync(decrypted.fd)
        with mapped(region, f"sysproc-test-{os.getpid()}") as (_, fd):
            assert os.pread(fd, len(data), 1 << 20) == data
            os.pwrite(fd, data[::-1], 8 << 20)
            os.fsync(fd)
        with decrypted_file(region) as decrypted:
            assert os.pread(decrypted.fd, len(data), 8 << 20) == data[::-1]


def test_what_is_loaded_is_listed() -> None:
    with DeviceMapper() as mapper:
        assert mapper.version()[0] == 4 and mapper.load_target("crypt") and "crypt" in mapper.targets()
        assert not mapper.load_target("no-such-target")


def test_no_table_shows_the_key(tmp_path: Path) -> None:
    with volume_file(tmp_path / "volume") as region:
        with unlock(region, open_volume(region), memoryview(SECRET)).key as key:
            shown = key.view.hex()
        name = f"sysproc-test-{os.getpid()}"
        with mapped(region, name) as (mapper, _):
            line = mapper.table(name)
    assert shown not in line and f":64:{KEY_KIND}:" in line
