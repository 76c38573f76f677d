"""What is decrypted, as a device of dm-crypt, where the kernel has that: no process is needed once it is there.

    create ─▶ a table without a key ─▶ open ─▶ to be removed with its last use ─▶ loop device over the encrypted area
          ─▶ key in this thread's keyring ─▶ dm-crypt's table ─▶ resume ─▶ key out of the keyring ─▶ in use

So there is no moment at which a device has the key and would outlive its uses, whoever dies. The loop device has the
area's file description, and with it the area's lock (`sysproc.storage.decrypted.process`): that lasts as long as the
device below lasts. The name of the device says of which area it is; its uuid is what the service calls it
(`sysproc.isolation.volumes.decrypted_devices`), if it is to be found again. The ioctls are
`sysproc.linux.device_mapper`; where there are none, `sysproc.storage.decrypted.server` decrypts.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from sysproc.linux.device_mapper import (
    KEY_KIND,
    CryptTable,
    DeviceMapper,
    device_path,
    open_mapped,
)
from sysproc.linux.keyring import KEY_SPEC_THREAD_KEYRING, add_key, unlink_key
from sysproc.linux.loop import (
    LO_FLAGS_AUTOCLEAR,
    LO_FLAGS_DIRECT_IO,
    loop_configure,
    loop_get_status64,
    loop_set_sizelimit,
)
from sysproc.storage.luks.metadata import Segment
from sysproc.storage.luks.region import Region

# What a kernel says that has no device mapper, no dm-crypt, no such cipher, no keyrings; or does not let us.
_NOT_HERE = (
    *(errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP),
    *(errno.EPERM, errno.EACCES, errno.ENOKEY),
)


def mapped_device(
    region: Region, segment: Segment, size: int, key: memoryview, uuid: str, *, direct: bool = False
) -> int | None:
    """The decrypted device, open; it is there as long as this fd, or another use of it. None: not by this kernel.

    direct: past the host's page cache; None where that cannot be.
    """
    try:
        return _mapped(region, segment, size, key, uuid, direct=direct)
    except OSError as failure:
        if failure.errno not in _NOT_HERE:
            raise
        return None


def _mapped(region: Region, segment: Segment, size: int, key: memoryview, uuid: str, *, direct: bool) -> int:
    name, flags = name_of(region), LO_FLAGS_AUTOCLEAR | (LO_FLAGS_DIRECT_IO if direct else 0)
    with ExitStack() as stack, ExitStack() as undo:
        mapper = stack.enter_context(DeviceMapper())
        device_fd = _empty(mapper, name, uuid, size)
        undo.callback(os.close, device_fd)
        loop_fd, _ = loop_configure(
            region.fd, offset=region.offset, size=region.size, flags=flags, name="sysproc-encrypted"
        )
        stack.callback(os.close, loop_fd)
        if direct and not loop_get_status64(loop_fd).lo_flags & LO_FLAGS_DIRECT_IO:
            raise OSError(errno.EOPNOTSUPP, "goes through the page cache", name)
        number = os.fstat(loop_fd).st_rdev
        backing = (os.major(number), os.minor(number))
        with _in_keyring(name, key) as known:
            line = CryptTable(size, len(key), known, backing, segment.offset, segment.sector_size, segment.iv_tweak)
            mapper.load_table(name, line)
        mapper.resume(name)
        undo.pop_all()
        return device_fd


def widen_mapped(region: Region, segment: Segment, size: int, key: memoryview) -> None:
    """Let the device over this area, which has become larger, be as large. OSError(ENXIO): there is none.

    The table in use goes on until the new one takes its place, which is one step of the kernel's.
    """
    name = name_of(region)
    with DeviceMapper() as mapper:
        backing = backing_of(mapper.table(name))
        loop_fd = os.open(f"/dev/loop{backing[1]}", os.O_RDWR | os.O_CLOEXEC)
        try:
            loop_set_sizelimit(loop_fd, region.size)
        finally:
            os.close(loop_fd)
        with _in_keyring(name, key) as known:
            line = CryptTable(size, len(key), known, backing, segment.offset, segment.sector_size, segment.iv_tweak)
            mapper.load_table(name, line)
        mapper.resume(name)


def backing_of(table: str) -> tuple[int, int]:
    """The device below, by the parameters of a dm-crypt target: cipher, key, iv_offset, device, …"""
    major, minor = table.split()[3].split(":")
    return int(major), int(minor)


def name_of(region: Region) -> str:
    """Of the device over an area of a file: no other area on this host has the same."""
    file = os.fstat(region.fd)
    return f"sysproc-{file.st_dev:x}-{file.st_ino:x}-{region.offset:x}"


def _empty(mapper: DeviceMapper, name: str, uuid: str, size: int) -> int:
    """A device without I/O, open; from here on it goes when nobody has it open."""
    try:
        _, minor = mapper.create(name, uuid)
    except OSError as failure:
        if failure.errno != errno.EBUSY:
            raise
        # Who has locked the area is alone: this one was being made, and its maker killed before it was open.
        mapper.remove(name)
        _, minor = mapper.create(name, uuid)
    try:
        mapper.load_nothing(name, size)
        device_fd = open_mapped(device_path(minor))
    except OSError:
        mapper.remove(name)
        raise
    mapper.remove(name, deferred=True)
    return device_fd


@contextmanager
def _in_keyring(name: str, key: memoryview) -> Iterator[str]:
    """The key's description, by which this thread, and nobody else, finds it; the kernel wipes it after the block."""
    description = f"sysproc:{name}"
    number = add_key(KEY_KIND, description, key, KEY_SPEC_THREAD_KEYRING)
    try:
        yield description
    finally:
        unlink_key(number, KEY_SPEC_THREAD_KEYRING)
