"""The devices over what is decrypted of a volume: found by the name that they were given, or made.

    filesystems   encrypted partition ─ process ─ file without a path ─ loop device "…:0" ─ mounted
    whole         encrypted file ─ process ─ file without a path ─ loop device "…:-" ─ loop device "…:0" ─ mounted

    the same by dm-crypt
    filesystems   encrypted partition ─ loop device ─ device of dm-crypt "…:0" ─ mounted
    whole         encrypted file ─ loop device ─ device of dm-crypt "…:-" ─ loop device "…:0" ─ mounted

The file of the process has no path and no inode of its own that says anything: so a device carries in its name
(`lo_file_name`, or the mapping's uuid, kept by the kernel) of which file it is, by device and inode, and which
filesystem. That there is one process or mapping at most for a part of the file is its lock's business
(`sysproc.storage.decrypted`); which loop device there is on a file that has a path,
`sysproc.isolation.volumes.devices`.
"""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sysproc.failpoints import failpoint
from sysproc.isolation.volumes.devices import device_of
from sysproc.linux.device_mapper import device_path, is_device_path, mapped_uuid, mapped_uuids, open_mapped
from sysproc.linux.loop import LO_FLAGS_AUTOCLEAR, LO_FLAGS_DIRECT_IO, loop_configure, loop_name, loops_by_file

_NAME = re.compile(r"sysproc:([0-9a-f]{16}):([0-9a-f]+):([0-9a-f]+):(-|[0-9]+)")
# What sysfs shows as the file of a device over a file without a path.
NO_PATH = "/"


@dataclass(frozen=True)
class DeviceName:
    """volume: its id; of the file with this device and inode; which filesystem, None: the whole, with its table."""

    volume: str
    device: int
    inode: int
    filesystem: int | None

    @classmethod
    def of(cls, volume: str, file: Path, filesystem: int | None) -> "DeviceName":
        """Of a volume in this file."""
        found = os.stat(file)
        return cls(volume, found.st_dev, found.st_ino, filesystem)

    @classmethod
    def read(cls, text: str) -> "DeviceName | None":
        """None for a device of something else."""
        found = _NAME.fullmatch(text)
        if found is None:
            return None
        volume, device, inode, filesystem = found.groups()
        return cls(volume, int(device, 16), int(inode, 16), None if filesystem == "-" else int(filesystem))

    def __str__(self) -> str:
        which = "-" if self.filesystem is None else self.filesystem
        return f"sysproc:{self.volume}:{self.device:x}:{self.inode:x}:{which}"

    def is_of(self, file: os.stat_result) -> bool:
        """Whether this is the file."""
        return (self.device, self.inode) == (file.st_dev, file.st_ino)


def named_devices() -> Mapping[str, DeviceName]:
    """All of the host, by path. Blocks."""
    found = {}
    for backing, paths in loops_by_file().items():
        if is_named(backing):
            found.update({path: name for path in paths if (name := name_of(path)) is not None})
    mapped = {path: DeviceName.read(uuid) for path, uuid in mapped_uuids().items()}
    return {**found, **{path: name for path, name in mapped.items() if name is not None}}


def is_named(backing: str) -> bool:
    """Whether a loop device over this is told by its name: over a file without a path, or over such a device."""
    return backing == NO_PATH or backing.startswith("/dev/loop") or is_device_path(backing)


def name_of(path: str) -> DeviceName | None:
    """Of one device; None if it has none, or is free by now."""
    if is_device_path(path):
        return DeviceName.read(mapped_uuid(path))
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as failure:
        if failure.errno not in (errno.ENOENT, errno.ENXIO):
            raise
        return None
    try:
        return _name_of(fd)
    finally:
        os.close(fd)


def _name_of(fd: int) -> DeviceName | None:
    try:
        return DeviceName.read(loop_name(fd))
    except OSError as failure:
        if failure.errno != errno.ENXIO:
            raise
        return None


@contextmanager
def decrypted_device(
    file: Path, asked: Mapping[str, Any], fds: Sequence[int], inside: Callable[..., Any] = device_of
) -> Iterator[str]:
    """The path of the device to be mounted, there as long as the block lasts or something has it mounted.

    asked: `volume`, `filesystem`, `whole`, `offset` and `size` in it; fds: the decrypted file, if it was opened just
    now, of `block_size`; inside: how the device in a whole one is found or made. OSError(ENOKEY): it is not open (any
    more).
    """
    base = DeviceName.of(asked["volume"], file, None if asked["whole"] else asked["filesystem"])
    fd, path = _made(base, fds[0], asked["block_size"]) if fds else found(base)
    try:
        failpoint("volumes.attach.after_decrypted")
        if not asked["whole"]:
            yield path
            return
        name = DeviceName.of(asked["volume"], file, asked["filesystem"])
        with inside(Path(path), asked["offset"], asked["size"], block_size=block_size(path), name=str(name)) as device:
            yield device
    finally:
        os.close(fd)


def block_size(device: str) -> int:
    """Of a block device, in bytes."""
    return int(Path("/sys/block", Path(device).name, "queue/logical_block_size").read_text())


def _made(name: DeviceName, fd: int, size: int) -> tuple[int, str]:
    """A loop device, unless what is decrypted is a device itself. Direct: so the data is cached once, above it."""
    opened = os.fstat(fd)
    if stat.S_ISBLK(opened.st_mode):
        return os.dup(fd), device_path(os.minor(opened.st_rdev))
    flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO
    return loop_configure(fd, offset=0, size=0, flags=flags, block_size=size, name=str(name))


def found(name: DeviceName) -> tuple[int, str]:
    """The device of this name, open: so it stays what it is. OSError(ENOKEY) if there is none."""
    for path in loops_by_file().get(NO_PATH, ()):
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        if _name_of(fd) == name:
            return fd, path
        os.close(fd)
    for path in (path for path, uuid in mapped_uuids().items() if uuid == str(name)):
        with unless_gone():
            fd = open_mapped(path)
            if mapped_uuid(path) == str(name):
                return fd, path
            os.close(fd)
    raise OSError(errno.ENOKEY, "not open", str(name))


@contextmanager
def unless_gone() -> Iterator[None]:
    """The last use of a mapping may end while it is opened."""
    try:
        yield
    except OSError as failure:
        if failure.errno not in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
            raise
