"""Device mapper: the ioctls of /dev/mapper/control (linux/dm-ioctl.h), its devices, the table line of dm-crypt.

    create ─▶ load_table ─▶ resume ─▶ in use ─▶ remove, deferred: with the last use it is gone

dm-crypt takes its key out of a keyring (a "logon" key, which nobody can read), so that no table shows it. Keyrings
are in `sysproc.linux.keyring`; the header and the volume key in `sysproc.storage.luks`; in which order a volume's
device is made, so that whoever dies it goes by itself, in `sysproc.storage.decrypted.mapped`.
"""

import ctypes
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from sysproc.linux.block_devices import block_attribute, devices_with_size

CONTROL = "/dev/mapper/control"
_MAGIC = 0xFD
_INTERFACE = (4, 0, 0)
DM_VERSION, DM_DEV_CREATE, DM_DEV_REMOVE, DM_DEV_SUSPEND, DM_DEV_STATUS = 0, 3, 4, 6, 7
DM_TABLE_LOAD, DM_TABLE_STATUS, DM_LIST_VERSIONS, DM_GET_TARGET_VERSION = 9, 12, 13, 17
DM_READONLY_FLAG, DM_STATUS_TABLE_FLAG = 1 << 0, 1 << 4
DM_SECURE_DATA_FLAG, DM_DEFERRED_REMOVE = 1 << 15, 1 << 17
_BUFFER_BYTES = 16384
_ALIGNMENT = 8
SECTOR = 512
KEY_KIND = "logon"
# For udev, where its rules for device mapper are (libdevmapper.h, DM_UDEV_DISABLE_…): nothing is read from the device,
# no links lead to what is in it, no LVM or RAID in it is started. They are the upper half of a cookie.
_UDEV_KEEPS_OFF = (0x02 | 0x04 | 0x08 | 0x20) << 16


class DmIoctl(ctypes.Structure):
    """struct dm_ioctl."""

    _fields_ = (
        ("version", ctypes.c_uint32 * 3),
        ("data_size", ctypes.c_uint32),
        ("data_start", ctypes.c_uint32),
        ("target_count", ctypes.c_uint32),
        ("open_count", ctypes.c_int32),
        ("flags", ctypes.c_uint32),
        ("event_nr", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
        ("dev", ctypes.c_uint64),
        ("name", ctypes.c_char * 128),
        ("uuid", ctypes.c_char * 129),
        ("data", ctypes.c_char * 7),
    )


# struct dm_target_spec: sector_start, length, status, next, target_type
_TARGET = struct.Struct("=QQiI16s")
# struct dm_target_versions: next, version
_TARGET_VERSION = struct.Struct("=IIII")


def request_number(command: int) -> int:
    """_IOWR(DM_IOCTL, command, struct dm_ioctl)."""
    return 3 << 30 | ctypes.sizeof(DmIoctl) << 16 | _MAGIC << 8 | command


@dataclass(frozen=True)
class CryptTable:
    """One dm-crypt target over a whole device. Sizes in bytes; `iv_tweak` in sectors of 512."""

    size: int
    key_size: int
    key_description: str
    backing: tuple[int, int]
    backing_offset: int
    sector_size: int
    iv_tweak: int = 0

    def line(self) -> str:
        """The parameters (Documentation/admin-guide/device-mapper/dm-crypt.rst); the key is named, not shown."""
        key = f":{self.key_size}:{KEY_KIND}:{self.key_description}"
        major, minor = self.backing
        options = f"1 sector_size:{self.sector_size}"
        place = f"{self.iv_tweak} {major}:{minor} {self.backing_offset // SECTOR}"
        return f"aes-xts-plain64 {key} {place} {options}"


class DeviceMapper:
    """The control device. OSError(ENOENT, ENXIO, ENODEV): this kernel has none."""

    def __init__(self) -> None:
        self._fd = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)

    def close(self) -> None:
        """The devices stay."""
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()

    def version(self) -> tuple[int, int, int]:
        """DM_VERSION: of the interface."""
        answer, _ = self._ioctl(DM_VERSION)
        return answer.version[0], answer.version[1], answer.version[2]

    def targets(self) -> dict[str, tuple[int, int, int]]:
        """DM_LIST_VERSIONS: the kinds of targets that are loaded by now, with their versions."""
        _, data = self._ioctl(DM_LIST_VERSIONS)
        return parse_versions(data)

    def load_target(self, kind: str) -> bool:
        """DM_GET_TARGET_VERSION, Linux 5.2: loads the module if need be; whether the kernel has such targets."""
        try:
            self._ioctl(DM_GET_TARGET_VERSION, kind)
        except OSError as failure:
            if failure.errno != errno.EINVAL:
                raise
            return False
        return True

    def create(self, name: str, uuid: str) -> tuple[int, int]:
        """DM_DEV_CREATE: an empty device; its major and minor. EBUSY: the name or uuid is taken."""
        answer, _ = self._ioctl(DM_DEV_CREATE, name, uuid)
        return os.major(answer.dev), os.minor(answer.dev)

    def load_table(self, name: str, table: CryptTable) -> None:
        """DM_TABLE_LOAD, of a single dm-crypt target. ENOKEY: no such key in a keyring of this thread."""
        data = encode_target("crypt", table.size // SECTOR, table.line())
        self._ioctl(DM_TABLE_LOAD, name, flags=DM_SECURE_DATA_FLAG, targets=1, data=data)

    def load_nothing(self, name: str, size: int) -> None:
        """The same, of a target that fails all I/O: the device can be opened then (before Linux 5.15 it could be)."""
        self._ioctl(DM_TABLE_LOAD, name, targets=1, data=encode_target("error", size // SECTOR, ""))

    def resume(self, name: str) -> None:
        """DM_DEV_SUSPEND without its flag: the table that was loaded last is used from now on."""
        self._ioctl(DM_DEV_SUSPEND, name, event=_UDEV_KEEPS_OFF)

    def table(self, name: str) -> str:
        """DM_TABLE_STATUS: the parameters of its only target."""
        _, data = self._ioctl(DM_TABLE_STATUS, name, flags=DM_STATUS_TABLE_FLAG)
        return data[_TARGET.size :].partition(b"\0")[0].decode(errors="replace")

    def remove(self, name: str, *, deferred: bool = False) -> None:
        """DM_DEV_REMOVE; EBUSY if it is in use, unless deferred: then it goes with its last use. ENXIO: none."""
        self._ioctl(DM_DEV_REMOVE, name, flags=DM_DEFERRED_REMOVE if deferred else 0)

    def _ioctl(
        self,
        command: int,
        name: str = "",
        uuid: str = "",
        *,
        flags: int = 0,
        targets: int = 0,
        event: int = 0,
        data: bytes = b"",
    ) -> tuple[DmIoctl, bytes]:
        """One request, and the data that the kernel appends to its answer."""
        start = ctypes.sizeof(DmIoctl)
        memory = bytearray(start + max(len(data), _BUFFER_BYTES))
        request = DmIoctl.from_buffer(memory)
        request.version[:] = _INTERFACE
        request.data_size, request.data_start = len(memory), start
        request.name, request.uuid, request.flags, request.target_count = name.encode(), uuid.encode(), flags, targets
        request.event_nr = event
        memory[start : start + len(data)] = data
        try:
            fcntl.ioctl(self._fd, request_number(command), memory)
        except OSError as failure:
            raise OSError(failure.errno, failure.strerror, f"device mapper, command {command} {name}".strip()) from None
        answer = DmIoctl.from_buffer_copy(memory)
        return answer, bytes(memory[answer.data_start : answer.data_size])


def encode_target(kind: str, sectors: int, parameters: str) -> bytes:
    """struct dm_target_spec with its parameters, as DM_TABLE_LOAD takes it."""
    text = parameters.encode() + b"\0"
    text = text.ljust(-(-len(text) // _ALIGNMENT) * _ALIGNMENT, b"\0")
    return _TARGET.pack(0, sectors, 0, _TARGET.size + len(text), kind.encode()) + text


def parse_versions(data: bytes) -> dict[str, tuple[int, int, int]]:
    """The list of struct dm_target_versions."""
    found, at = dict[str, tuple[int, int, int]](), 0
    while at + _TARGET_VERSION.size <= len(data):
        step, *version = _TARGET_VERSION.unpack_from(data, at)
        name = data[at + _TARGET_VERSION.size :].partition(b"\0")[0].decode()
        if name:
            found[name] = (version[0], version[1], version[2])
        if step == 0:
            break
        at += step
    return found


def device_path(minor: int) -> str:
    """Of a device, as the kernel calls it; there need not be a node."""
    return f"/dev/dm-{minor}"


def is_device_path(path: str) -> bool:
    """Whether this is one of those."""
    return path.startswith("/dev/dm-")


def mapped_uuid(path: str) -> str:
    """What the maker of a device has called it (sysfs, `dm/uuid`); empty if it is gone, or has no table in use yet."""
    has_table = int(block_attribute(path, "size") or 0) > 0
    return (block_attribute(path, "dm/uuid") or "") if has_table else ""


def mapped_uuids() -> Mapping[str, str]:
    """Of all devices of this host, by their paths."""
    return {path: mapped_uuid(path) for path in (f"/dev/{name}" for name in devices_with_size("dm-"))}


def open_mapped(path: str) -> int:
    """The device's node, open for reading and writing. Without udev and devtmpfs it has none: then it is made.

    OSError(ENOENT, ENXIO): there is no such device any more.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        number = block_attribute(path, "dev")
        if number is None:
            raise
        os.mknod(path, stat.S_IFBLK | 0o660, os.makedev(*map(int, number.split(":"))))
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)


def why_not() -> str | None:
    """Why dm-crypt cannot be used here; None if it can."""
    try:
        with DeviceMapper() as mapper:
            return None if mapper.load_target("crypt") else "this kernel has no dm-crypt"
    except OSError as failure:
        if failure.errno not in (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EPERM, errno.EACCES):
            raise
        return f"{CONTROL}: {failure.strerror}"
