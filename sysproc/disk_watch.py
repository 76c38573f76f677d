"""The host's disk gets full: containers are told by ENOSPC, before their filesystems lose what they have accepted.

    free      above the reserve ── look again when it could be used up at the earliest
       │ below
       ▼
    full      every ext4 in a file of ours gives no more room (ENOSPC inside); event, log
       │ twice the reserve is free
       ▼
    free      they give it again; event, log

Files are sparse, so a filesystem may have room that the host's disk has not; its loop device could then only say EIO,
of data that was taken already, and a journal that cannot be written ends the filesystem until it is mounted again. The
reserve is for what was accepted before, for journals, and for the service's own records. btrfs and xfs have no such
knob: there the EIO stays (docs/VSF.md).
"""

import asyncio
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from sysproc.errors import ResourceExhausted
from sysproc.linux.ext4 import delayed_allocation_bytes, reserve_all_clusters, reserve_usual_clusters
from sysproc.linux.loop import loops_by_file
from sysproc.storage.database import Database
from sysproc.storage.events import write_event
from sysproc.to_end import to_end

log = structlog.get_logger()

# Of the disk, and at most.
RESERVE_PART, MOST_RESERVE = 8, 256 << 20
# With more than this, what is accepted and not written yet (a fifth of the memory) does not matter.
NEAR_BYTES = 64 << 30
# All writers together do not fill it faster, memory included; looked at no less and no more often than this.
FASTEST_BYTES_S = 4 << 30
LEAST_PAUSE_S, MOST_PAUSE_S, FULL_PAUSE_S = 0.05, 5.0, 0.25
# The device of a filesystem that was unmounted just now, or of one that is no ext4.
_NONE_THERE = (errno.ENOENT, errno.ENODEV)


@dataclass(frozen=True)
class Room:
    """What is free on a disk once all is written that was accepted, and what of it is kept."""

    free_bytes: int
    reserve_bytes: int

    def is_full(self, before: bool) -> bool:
        """What was full is so until there is twice as much."""
        return self.free_bytes < self.reserve_bytes * (2 if before else 1)

    def lasts_s(self) -> float:
        """How long it takes at least until it is full."""
        return min(max((self.free_bytes - self.reserve_bytes) / FASTEST_BYTES_S, LEAST_PAUSE_S), MOST_PAUSE_S)


class DiskWatch:
    """One instance, from one event loop; for all files below a state directory."""

    def __init__(self, state_dir: Path, database: Database) -> None:
        self._state_dir, self._database = state_dir, database
        self._full = False

    async def run(self) -> None:
        """Look until cancelled. What a daemon before this one has left full is opened again by the first look."""
        await to_end(self._let, reserve_usual_clusters)
        while True:  # noqa: ASYNC110  # nothing tells of the room on a disk
            await asyncio.sleep(await self._look_or_say())

    async def _look_or_say(self) -> float:
        try:
            return await self._look()
        except Exception:
            log.exception("the host's disk could not be looked at")
            return MOST_PAUSE_S

    async def _look(self) -> float:
        """Do what is to be done; how long until the next look."""
        room = await to_end(self._room)
        full = room.is_full(self._full)
        if full:  # each time: more may have been mounted meanwhile
            await to_end(self._let, reserve_all_clusters)
        elif self._full:
            await to_end(self._let, reserve_usual_clusters)
        if full != self._full:
            self._full = full
            await self._tell(room)
        return FULL_PAUSE_S if full else room.lasts_s()

    def _room(self) -> Room:
        disk = os.statvfs(self._state_dir)
        free = disk.f_bavail * disk.f_frsize
        reserve = min(disk.f_blocks * disk.f_frsize // RESERVE_PART, MOST_RESERVE)
        accepted: list[int] = []
        if free < NEAR_BYTES:
            self._let(lambda device: accepted.append(delayed_allocation_bytes(device)))
        return Room(free - sum(accepted), reserve)

    def _let(self, change: Callable[[str], None]) -> None:
        """Do something with each device of a file of ours that has an ext4 mounted."""
        for file, devices in loops_by_file().items():
            if self._state_dir in Path(file).parents:
                for device in devices:
                    try:
                        change(device)
                    except OSError as failure:
                        if failure.errno not in _NONE_THERE:
                            raise

    async def _tell(self, room: Room) -> None:
        kind = "disk.full" if self._full else "disk.room"
        told = {"free_bytes": room.free_bytes, "reserve_bytes": room.reserve_bytes}
        if self._full:
            log.error("the host's disk is full: containers get no more of it", **told)
        else:
            log.warning("the host's disk has room again", **told)
        try:
            await self._database.write(partial(write_event, kind=kind, subject="host", data=told))
        except ResourceExhausted:
            log.error("there is no room to record it", event_kind=kind)
