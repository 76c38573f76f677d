"""Encrypted volumes that become larger while they are in use: what is decrypted of them grows with the file.

    filesystems   longer file, table -> who decrypts the last partition -> its device -> filesystem (job)
    whole         longer file -> who decrypts it -> its device -> table in it -> device of the last part -> filesystem

    who decrypts   a process     is told to look how large the area is (SIGWINCH), then its loop device takes that size
                   dm-crypt      has to be given the key again: so that takes the secret

Where another filesystem is mounted, and the last one locked, that is opened with the secret for as long as it grows.
Whether the secret is the right one, where it takes one, is known before anything is changed.
Each step can be done again: what a crash has left half done is finished by the next start, if nobody has to give a
secret for it; else by the same growth, asked for once more. Growing in a copy, what nobody uses, is in
`sysproc.encrypted_files`; what is not encrypted in `sysproc.volume_resize`.
"""

import os
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from sysproc.encrypted_files import areas, must_have, opened
from sysproc.errors import FailedPrecondition
from sysproc.failpoints import failpoint
from sysproc.ids import to_hex
from sysproc.images import full_disk_as_enospc, job_failures
from sysproc.isolation.launcher_client import Launcher
from sysproc.isolation.volumes.decrypted_devices import DeviceName, found
from sysproc.linux.device_mapper import is_device_path
from sysproc.linux.loop import loop_set_capacity
from sysproc.linux.memory import SecretBuffer
from sysproc.linux.pidfd import pidfd_open, pidfd_send_signal
from sysproc.storage.decrypted.found import processes_with
from sysproc.storage.decrypted.process import WIDEN
from sysproc.storage.decrypted.sectors import data_size
from sysproc.storage.luks.region import Region
from sysproc.storage.luks.volume import open_volume
from sysproc.storage.volumes import WHOLE, VolumeRow
from sysproc.storage.vsf.clone import disk_full_as_domain_error, grow_table_in_use, grow_table_there
from sysproc.storage.vsf.gpt import has_gpt
from sysproc.to_end import to_end
from sysproc.volume_devices import VolumeDevices, name_for
from sysproc.volume_files import VolumeFiles
from sysproc.volume_opening import broken, unless_closed
from sysproc.volume_resize import ONLINE_TIMEOUT_S, not_permitted

WIDEN_TIMEOUT_S, _PAUSE_S = 5.0, 0.005


class VolumeGrowth:
    """One instance, from one event loop; who calls it holds the volume's lock."""

    def __init__(self, files: VolumeFiles, launcher: Launcher, devices: VolumeDevices) -> None:
        self._files, self._launcher, self._devices = files, launcher, devices

    def is_open(self, row: VolumeRow) -> bool:
        """Whether something of it is decrypted. Raises FailedPrecondition (what decrypts it was killed). Blocks."""
        present = [one for _, one in self._devices.decrypted([row])]
        if present and self._devices.broken(row, present):
            raise broken(row)
        return bool(present)

    async def check_secret(self, row: VolumeRow, secret: SecretBuffer | None) -> None:
        """That this is all it takes to grow it; nothing is changed. Raises FailedPrecondition (locked), WrongKey."""
        if not await to_end(self._takes_secret, row):
            return
        shown = must_have(secret, row)
        with opened(self._files.path(row), os.O_RDONLY) as fd:
            area = (await to_end(areas, fd, row.encryption))[-1]
            await self._files.unlocking.check(area, shown)

    def _takes_secret(self, row: VolumeRow) -> bool:
        """Whether nobody decrypts the last area, or the kernel does. Blocks."""
        last = name_for(row, self._files.path(row), len(row.filesystems) - 1).filesystem
        paths = [one.path for _, one in self._devices.decrypted([row]) if one.filesystem == last]
        return not paths or any(map(is_device_path, paths))

    async def grow(self, row: VolumeRow, secret: SecretBuffer | None) -> int:
        """Let it have the size that is recorded, whoever has it mounted; the size of its last filesystem then.

        Raises FailedPrecondition (locked, the kernel), WrongKey, ResourceExhausted.
        """
        path = self._files.path(row)
        name = name_for(row, path, len(row.filesystems) - 1)
        with opened(path, os.O_RDWR) as fd:
            area = await to_end(grown_area, fd, row, path)
            failpoint("volumes.grow.after_table")
            if any(one.filesystem == name.filesystem for _, one in self._devices.decrypted([row])):
                with unless_closed(row):
                    await self._widen(row, name, area, secret)
                    return await self._grow(row, area, await to_end(self._place, row, name), [])
            async with self._files.unlocking.opened(area, must_have(secret, row)) as file:
                return await self._grow(row, area, (0, file.size), [file.fd], file.sector_size)

    async def _widen(self, row: VolumeRow, name: DeviceName, area: Region, secret: SecretBuffer | None) -> None:
        """Let what is decrypted of the area, the device of this name, be as large as the area is by now."""
        with ExitStack() as stack:
            device_fd, device = await to_end(held, name, stack)
            if is_device_path(device):
                await self._files.unlocking.widen(area, must_have(secret, row))
            elif not await to_end(widened, device_fd, self._files.path(row), data_bytes(area)):
                raise not_widened(row)
        failpoint("volumes.grow.after_decrypted")

    def _place(self, row: VolumeRow, name: DeviceName) -> tuple[int, int]:
        """Where the last filesystem is in what is decrypted, and how large it can be: with its table grown. Blocks."""
        device_fd, _ = found(name)
        try:
            size = os.lseek(device_fd, 0, os.SEEK_END)
            if row.encryption != WHOLE or not has_gpt(device_fd):
                return 0, size
            last = grow_table_there(device_fd, size).partitions[-1]
            return last.offset_bytes, last.size_bytes
        finally:
            os.close(device_fd)

    async def _grow(
        self, row: VolumeRow, area: Region, place: tuple[int, int], fds: Sequence[int], block_size: int = 0
    ) -> int:
        offset, size = place
        path = self._files.path(row)
        which = {"volume": to_hex(row.id), "filesystem": len(row.filesystems) - 1, "whole": row.encryption == WHOLE}
        values: dict[str, Any] = {
            "file": str(path),
            "fstype": row.filesystems[-1].type,
            "offset": offset,
            "size": size,
            "encrypted": {**which, "block_size": block_size},
        }
        with job_failures("grow the volume"), full_disk_as_enospc(path.parent), not_permitted(row):
            await self._launcher.run_job("grow_mounted", values, fds, timeout_s=ONLINE_TIMEOUT_S)
        return size if row.encryption == WHOLE else area.size


def grown_area(fd: int, row: VolumeRow, path: Path) -> Region:
    """The last area that is encrypted, with its new size, in a file that has its new size: all on the disk. Blocks."""
    with disk_full_as_domain_error(path):
        if row.encryption == WHOLE:
            os.ftruncate(fd, row.size_bytes)
            os.fsync(fd)
        else:
            grow_table_in_use(fd, row.size_bytes)
    return areas(fd, row.encryption)[-1]


def held(name: DeviceName, stack: ExitStack) -> tuple[int, str]:
    """The device of this name, open until the stack ends, also if who asked is cancelled meanwhile. Blocks."""
    device_fd, path = found(name)
    stack.callback(os.close, device_fd)
    return device_fd, path


def data_bytes(area: Region) -> int:
    """How large what is decrypted of it has to be. Blocks."""
    return data_size(area, open_volume(area).metadata.segment)


def widened(device_fd: int, file: Path, size: int) -> bool:
    """Whether a loop device over what a process decrypts of a file has become as large as this. Blocks."""
    tell(file, WIDEN)
    deadline = time.monotonic() + WIDEN_TIMEOUT_S
    while loop_set_capacity(device_fd) != size:
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_S)
    return True


def tell(file: Path, number: signal.Signals) -> None:
    """Send a signal to those that decrypt a file, and to nobody else. Blocks."""
    with ExitStack() as stack:
        pidfds = dict[int, int]()
        for pid in processes_with(file):
            with suppress(ProcessLookupError):
                pidfds[pid] = pidfd_open(pid)
                stack.callback(os.close, pidfds[pid])
        # A pid may have become another's before it was opened: that one does not have the file.
        for pid in pidfds.keys() & set(processes_with(file) if pidfds else ()):
            pidfd_send_signal(pidfds[pid], number)


def not_widened(row: VolumeRow) -> FailedPrecondition:
    """What decrypts it was started by a service that could not do that yet; or its header says a size."""
    return FailedPrecondition(
        f"The volume {row.name} is in use, and what decrypts it cannot become larger meanwhile.",
        resolution="Unmount it everywhere, then grow it.",
        reason="VOLUME_IN_USE",
        metadata={"volume": row.name},
    )
