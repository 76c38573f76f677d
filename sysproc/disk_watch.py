"""The host's disk gets full: containers are told by ENOSPC, before their filesystems lose what they have accepted.

    free      above the reserve ── look again when it could be used up at the earliest
       │ below
       ▼
    full      every ext4 and xfs in a file of ours gives no more room (ENOSPC inside); event, log
       │ twice the reserve is free
       ▼
    free      they give it again; event, log

Files are sparse, so a filesystem may have room that the host's disk has not; its loop device could then only say that
there is none, of data that was taken already, and a journal that cannot be written ends the filesystem until it is
mounted again. The reserve is for what was accepted before, for journals, and for the service's own records. btrfs
cannot be told: there it stays so (docs/VSF.md). How the others are is in `sysproc.disk_filesystems`.
"""

import asyncio
import os
from dataclasses import dataclass, replace
from functools import partial

import structlog

from sysproc.disk_filesystems import DiskFilesystems
from sysproc.errors import ResourceExhausted
from sysproc.isolation.launcher_client import Launcher
from sysproc.linux.vmstat import unwritten_bytes
from sysproc.storage.database import Database
from sysproc.storage.events import write_event
from sysproc.storage.state_dir import StateDir
from sysproc.to_end import to_end

log = structlog.get_logger()

# Of the disk, and at most.
RESERVE_PART, MOST_RESERVE = 8, 256 << 20
# With more than this, what is accepted and not written yet (a fifth of the memory) does not matter.
NEAR_BYTES = 64 << 30
# So many times the reserve from the end each ext4 is asked; before, what the host has in memory is bound enough.
NEAR_RESERVES = 3
# All writers together do not fill it faster, memory included; looked at no less and no more often than this.
FASTEST_BYTES_S = 4 << 30
LEAST_PAUSE_S, MOST_PAUSE_S, FULL_PAUSE_S = 0.05, 5.0, 0.25


@dataclass(frozen=True)
class Room:
    """What is free on a disk once all is written that was accepted, and what of it is kept."""

    free_bytes: int
    reserve_bytes: int
    size_bytes: int

    def is_full(self, before: bool) -> bool:
        """What was full is so until there is twice as much."""
        return self.free_bytes < self.reserve_bytes * (2 if before else 1)

    def lasts_s(self) -> float:
        """How long it takes at least until it is full."""
        return min(max((self.free_bytes - self.reserve_bytes) / FASTEST_BYTES_S, LEAST_PAUSE_S), MOST_PAUSE_S)


@dataclass(frozen=True)
class DiskState:
    """What there is to be told of the disk with the state directory. enough_bytes: from when on there is room again."""

    full: bool
    free_bytes: int
    enough_bytes: int
    size_bytes: int


class DiskWatch:
    """One instance, from one event loop; for all files below a state directory."""

    def __init__(self, state_dir: StateDir, launcher: Launcher, database: Database) -> None:
        self._state_dir, self._database = state_dir, database
        self._filesystems = DiskFilesystems(state_dir, launcher)
        self._full = False

    async def run(self) -> None:
        """Look until cancelled. What a daemon before this one has left full is opened again by the first look."""
        try:
            await to_end(self._filesystems.open_ext4)
            while True:  # noqa: ASYNC110  # nothing tells of the room on a disk
                await asyncio.sleep(await self._look_or_say())
        finally:
            await self._filesystems.xfs.end()
            self._filesystems.let_go()

    async def state(self) -> DiskState:
        """As it is at this moment."""
        room = await to_end(self._disk)
        return DiskState(self._full, room.free_bytes, 2 * room.reserve_bytes, room.size_bytes)

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
            await to_end(self._filesystems.close_ext4)
        elif self._full:
            await to_end(self._filesystems.open_ext4)
        told, self._full = self._full, full
        self._filesystems.xfs.settle(closed=full)
        if full != told:
            await self._tell(room)
        return FULL_PAUSE_S if full else room.lasts_s()

    def _disk(self) -> Room:
        disk = os.statvfs(self._state_dir.path)
        size = disk.f_blocks * disk.f_frsize
        return Room(disk.f_bavail * disk.f_frsize, min(size // RESERVE_PART, MOST_RESERVE), size)

    def _room(self) -> Room:
        room = self._disk()
        self._filesystems.xfs.find()
        unwritten = unwritten_bytes() if room.free_bytes < NEAR_BYTES else 0
        if room.free_bytes - unwritten < NEAR_RESERVES * room.reserve_bytes:
            # Of an xfs it is not known. All that the host has would be too much: of writers on other disks as well.
            unwritten = self._filesystems.accepted_bytes()
        else:
            self._filesystems.let_go()
        return replace(room, free_bytes=room.free_bytes - unwritten)

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
