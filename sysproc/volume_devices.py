"""Which devices are of which volumes, as the kernel says: by the file, or of what is decrypted by the name.

    of a mount to its volume's file, of volumes to their devices, of a file to whether anything has it still

Only looking belongs here, all of it blocks. Devices are made in `sysproc.isolation.volumes`; what is done about them is
in `sysproc.volume_mounts`.
"""

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sysproc.encrypted_files import opened
from sysproc.ids import to_hex
from sysproc.isolation.volumes.decrypted_devices import DeviceName, is_named, name_of, named_devices
from sysproc.isolation.volumes.devices import is_exclusive
from sysproc.linux.device_mapper import is_device_path
from sysproc.linux.files import f_ofd_getlk
from sysproc.linux.loop import loop_backing_file, loop_is_direct, loop_offset, loops_backed_by, loops_by_file
from sysproc.storage.state_dir import StateDir
from sysproc.storage.volumes import NONE, WHOLE, VolumeRow, encrypts
from sysproc.storage.vsf.disk import read_disk
from sysproc.storage.vsf.gpt import read_gpt


@dataclass(frozen=True)
class Decrypted:
    """A device over what is decrypted of a volume; which filesystem, None: all of it, with the table."""

    path: str
    filesystem: int | None


class VolumeDevices:
    """Those of one state directory."""

    def __init__(self, state_dir: StateDir) -> None:
        self._state_dir = state_dir

    def file_of(self, source: str) -> Path | None:
        """The file of the volume that a mount of this source is of; None if it is of none."""
        if is_device_path(source):
            return self._file_named(source)
        if not source.startswith("/dev/loop"):
            return None
        backing = loop_backing_file(source)
        if backing is None:
            return None
        file = Path(backing)
        if file.parent == self._state_dir.volumes:
            return file
        return self._file_named(source) if is_named(backing) else None

    def _file_named(self, source: str) -> Path | None:
        name = name_of(source)
        if name is None:
            return None
        file = self._state_dir.volume(name.volume)
        try:
            return file if name.is_of(file.stat()) else None
        except FileNotFoundError:
            return None

    def of_file(self, file: Path) -> set[str]:
        """All that there are on one file, or on what is decrypted of it."""
        wanted = file.stat()
        return {*loops_backed_by(file), *(path for path, name in named_devices().items() if name.is_of(wanted))}

    def is_held(self, file: Path) -> bool:
        """Whether a device has a part of the file, or the process of one that is decrypted."""
        with opened(file, os.O_RDONLY) as fd:
            return f_ofd_getlk(fd, 0, 0)

    def mountable(self, rows: Sequence[VolumeRow]) -> Mapping[str, tuple[VolumeRow, str]]:
        """The devices of these volumes' filesystems, each with its label: the host's are looked at once."""
        found = {}
        by_file = loops_by_file()
        for row in (row for row in rows if not all(encrypts(row, at) for at in range(len(row.filesystems)))):
            for device in by_file.get(str(self._path(row)), ()):
                label = self._label_at(row, device)
                if label is not None:
                    found[device] = row, label
        for row, decrypted in self.decrypted(rows):
            if decrypted.filesystem is not None:
                found[decrypted.path] = row, row.filesystems[decrypted.filesystem].label
        return found

    def decrypted(self, rows: Sequence[VolumeRow]) -> Sequence[tuple[VolumeRow, Decrypted]]:
        """What is decrypted of these volumes at the moment."""
        encrypted = {to_hex(row.id): row for row in rows if row.encryption != NONE}
        if not encrypted:
            return []
        ours = [(path, name) for path, name in named_devices().items() if name.volume in encrypted]
        return [
            (encrypted[name.volume], Decrypted(path, name.filesystem))
            for path, name in ours
            if name.is_of(self._path(encrypted[name.volume]).stat())
        ]

    def broken(self, row: VolumeRow, decrypted: Sequence[Decrypted]) -> bool:
        """Whether the process of one of these has been killed: then nobody has locked its part of the file."""
        with opened(self._path(row), os.O_RDONLY) as fd:
            if row.encryption == WHOLE:
                return bool(decrypted) and not f_ofd_getlk(fd, 0, 0)
            partitions = read_gpt(fd).partitions
            parts = [partitions[one.filesystem] for one in decrypted if one.filesystem is not None]
            return not all(f_ofd_getlk(fd, part.offset_bytes, part.size_bytes) for part in parts)

    def is_exclusive(self, row: VolumeRow, filesystem: int, device: str = "") -> bool:
        """Whether somebody has a filesystem of an encrypted volume alone; device: that of one in a whole one."""
        if row.encryption == WHOLE:
            return _is_exclusive_inside(device)
        with opened(self._path(row), os.O_RDONLY) as fd:
            return is_exclusive(self._path(row), read_gpt(fd).partitions[filesystem].offset_bytes)

    def is_direct(self, row: VolumeRow, filesystem: int) -> bool:
        """Whether the encrypted file of a filesystem that is open is read and written past the page cache."""
        wanted = name_for(row, self._path(row), filesystem)
        mapped = [path for path, name in named_devices().items() if name == wanted and is_device_path(path)]
        below = [loop for path in mapped for loop in _devices_below(path)]
        return bool(below) and all(loop_is_direct(f"/dev/{loop}") for loop in below)

    def _path(self, row: VolumeRow) -> Path:
        return self._state_dir.volume(to_hex(row.id))

    def _label_at(self, row: VolumeRow, device: str) -> str | None:
        offset = loop_offset(device)
        if offset is None:
            return None
        with opened(self._path(row), os.O_RDONLY) as fd:
            begins = [one.offset_bytes for one in read_disk(fd)]
        # Another of the host's own, over the whole file for instance; or what dm-crypt has below it.
        at = begins.index(offset) if offset in begins else None
        return None if at is None or encrypts(row, at) else row.filesystems[at].label


def _is_exclusive_inside(device: str) -> bool:
    """Whether somebody has a device alone that is over another one; no, if either was freed just now."""
    offset, backing = loop_offset(device), loop_backing_file(device)
    try:
        return offset is not None and backing is not None and is_exclusive(Path(backing), offset)
    except OSError as failure:
        if failure.errno not in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
            raise
        return False


def _devices_below(device: str) -> Sequence[str]:
    """The names of what a device is over (Documentation/ABI/testing/sysfs-block, `slaves`); none if it is gone."""
    try:
        return os.listdir(f"/sys/block/{Path(device).name}/slaves")
    except FileNotFoundError:
        return ()


def name_for(row: VolumeRow, file: Path, filesystem: int) -> DeviceName:
    """Of the device over what is decrypted first: of the filesystem, or of the whole."""
    return DeviceName.of(to_hex(row.id), file, None if row.encryption == WHOLE else filesystem)
