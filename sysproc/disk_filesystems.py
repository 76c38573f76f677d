"""The filesystems in files of a state directory that are mounted: what they have accepted, and no more room of them.

    ext4     /sys/fs/ext4/DEVICE: both
    xfs      an ioctl on the filesystem, by a job for each (`sysproc.disk_xfs`): no more room
    btrfs    neither: it has no such knob

Whose a device is, its file says, or its name where it is over what is decrypted. That is looked at once for each mount.
When what is done is decided in `sysproc.disk_watch`.
"""

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from sysproc.disk_xfs import DiskXfs, Key
from sysproc.isolation.launcher_client import Launcher
from sysproc.linux.ext4 import MountedExt4
from sysproc.linux.loop import loop_backing_file
from sysproc.linux.mounted_filesystems import mounted_from
from sysproc.storage.state_dir import StateDir
from sysproc.volume_devices import VolumeDevices

_GONE = (errno.ENOENT, errno.ENODEV)
T = TypeVar("T")


class DiskFilesystems:
    """Those of one state directory. All but `xfs` blocks, and is called by one thread at a time."""

    def __init__(self, state_dir: StateDir, launcher: Launcher) -> None:
        self._state_dir, self._devices = state_dir, VolumeDevices(state_dir)
        self._ext4: dict[Key, MountedExt4 | None] = {}
        self.xfs = DiskXfs(launcher, self._is_ours)

    # -- ext4

    def accepted_bytes(self) -> int:
        """What they have accepted and not written yet, at most; of ext4."""
        return sum(self._each_ext4(MountedExt4.delayed_allocation_bytes))

    def close_ext4(self) -> None:
        """None gives out any more room."""
        list(self._each_ext4(MountedExt4.reserve_all_clusters))

    def open_ext4(self) -> None:
        """They do again."""
        list(self._each_ext4(MountedExt4.reserve_usual_clusters))

    def _each_ext4(self, look: Callable[[MountedExt4], T]) -> Iterator[T]:
        for one in self._mounted_ext4():
            try:
                yield look(one)
            except OSError as failure:
                if failure.errno not in _GONE:
                    raise

    def _mounted_ext4(self) -> list[MountedExt4]:
        """Those of ours. What is mounted no more is let go of."""
        there = mounted_from("ext4").items()
        for gone in self._ext4.keys() - there:
            if (one := self._ext4.pop(gone)) is not None:
                one.close()
        for key in there - self._ext4.keys():
            self._ext4[key] = self._opened(key[0])
        return [one for one in self._ext4.values() if one is not None]

    def _opened(self, name: str) -> MountedExt4 | None:
        if not self._is_ours(name):
            return None
        try:
            return MountedExt4(name)
        except OSError as failure:
            if failure.errno not in _GONE:
                raise
            return None

    def _is_ours(self, name: str) -> bool:
        backing = loop_backing_file(name)
        if backing is not None and self._state_dir.path in Path(backing).parents:
            return True
        return self._devices.file_of(f"/dev/{name}") is not None

    def let_go(self) -> None:
        """Nothing of them is held open, until they are looked at again; they stay as they are."""
        for one in self._ext4.values():
            if one is not None:
                one.close()
        self._ext4.clear()
