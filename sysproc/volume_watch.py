"""Whether what decrypts a volume was killed: noticed when it happens, or at the next start, and written as an event.

    opened (`sysproc.volume_opening`) ──▶ its pidfd is watched ──ended──▶ devices over it are there still: broken
    start ──▶ processes that there are are found ─▶ watched             ─▶ none: it was locked, as it should be
          └─▶ devices without a process: broken

What the kernel does then: I/O on the devices fails, and filesystems on them become read-only. What a caller does about
it: `sysproc.volume_keys`, lock by force, and mount again.
"""

import asyncio
import os
from collections.abc import Callable

import structlog
from sqlalchemy import Connection

from sysproc.errors import ResourceExhausted
from sysproc.host import Host
from sysproc.ids import to_hex
from sysproc.linux.pidfd import pidfd_open
from sysproc.once import TaskOwner
from sysproc.storage import volumes as recorded
from sysproc.storage.decrypted.found import processes_with
from sysproc.storage.volumes import VolumeRow
from sysproc.to_end import to_end
from sysproc.volume_devices import VolumeDevices

log = structlog.get_logger()


class VolumeWatch:
    """One instance, used from one event loop."""

    def __init__(self, host: Host, tasks: TaskOwner) -> None:
        self._host, self._tasks, self._devices = host, tasks, VolumeDevices(host.state_dir)
        self._watched: dict[int, int] = {}

    def opened(self, row: VolumeRow, pidfd: int) -> None:
        """A volume was locked, and is open."""
        self.watch(row.id, pidfd)
        self._tasks.start(self._tell(lambda c: recorded.note_opened(c, row)))

    def watch(self, volume_id: int, pidfd: int) -> None:
        """Of the process of an open volume, which is ours from now on."""
        self._watched[pidfd] = volume_id
        asyncio.get_running_loop().add_reader(pidfd, self._ended, pidfd)

    def _ended(self, pidfd: int) -> None:
        volume_id = self._watched[pidfd]
        self._forget(pidfd)
        self._tasks.start(self._look(volume_id, again=True))

    def _forget(self, pidfd: int) -> None:
        del self._watched[pidfd]
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)

    async def _look(self, volume_id: int, *, again: bool) -> None:
        row = await self._host.database.read(lambda c: recorded.by_id(c, volume_id))
        if row is not None and await to_end(self._is_broken, row):
            log.error("the process of an encrypted volume was killed", volume=to_hex(row.id), name=row.name)
            await self._tell(lambda c: recorded.note_broken(c, row, again=again))

    async def _tell(self, write: Callable[[Connection], None]) -> None:
        try:
            await self._host.database.write(write)
        except ResourceExhausted as full:
            log.warning("not recorded", error=str(full))

    def _is_broken(self, row: VolumeRow) -> bool:
        present = [one for _, one in self._devices.decrypted([row])]
        return bool(present) and self._devices.broken(row, present)

    async def recover(self) -> None:
        """At the start: watch what is open, tell of what was killed meanwhile."""
        rows = await self._host.database.read(recorded.all_volumes)
        for row in {row.id: row for row, _ in await to_end(self._devices.decrypted, rows)}.values():
            for pid in await to_end(processes_with, self._host.volume_files.path(row)):
                try:
                    self.watch(row.id, pidfd_open(pid))
                except ProcessLookupError:
                    continue
            await self._look(row.id, again=False)

    def close(self) -> None:
        """Let go of all; they live on."""
        for pidfd in list(self._watched):
            self._forget(pidfd)
