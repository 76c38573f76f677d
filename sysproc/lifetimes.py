"""Containers that end by themselves: destroyed with all that is below, as if somebody had asked for it.

    ttl            expire_time is recorded; UpdateContainer sets it anew, also past the end of a daemon
    idle_timeout   counted here, from the last call that named the container or one below it, and from the last time
                   that a process other than inits was seen there; begins anew with each daemon

                     ┌────────── nothing is due ──────────┐
    note, used ──▶ wait for the earliest ──due──▶ look again, under the container's lock ──▶ destroy
                     ▲                                    │ it was changed, used, or is in use
                     └────────────────────────────────────┘

How a subtree is destroyed is in `sysproc.destroy`; which calls count is decided in `sysproc.server.interceptor`.
"""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from sysproc.containers import Containers
from sysproc.errors import NotFound
from sysproc.host import Host
from sysproc.ids import from_hex, to_hex
from sysproc.storage import hierarchy
from sysproc.storage.hierarchy import ContainerRow
from sysproc.to_end import to_end

log = structlog.get_logger()

# One in use is looked at so often within its timeout: so exact is the end of its use known.
LOOKS = 4


@dataclass
class Idle:
    """How long a container may be idle, when it was used last, and when to look at it; seconds of the loop's clock."""

    timeout_s: float
    used: float
    look: float


class Lifetimes:
    """All containers with a lifetime; one instance, from one event loop."""

    def __init__(self, host: Host, containers: Containers) -> None:
        self._host, self._containers = host, containers
        self._expire_at: dict[int, float] = {}
        self._idle: dict[int, Idle] = {}
        self._earlier = asyncio.Event()
        containers.life.on_noted = self.note

    def note(self, row: ContainerRow) -> None:
        """A container was made, changed, or found after a start."""
        self._expire_at.pop(row.id, None)
        idle = self._idle.pop(row.id, None)
        if row.expires_at is not None:
            self._expire_at[row.id] = row.expires_at
        if row.idle_timeout_s is not None:
            used = idle.used if idle is not None else asyncio.get_running_loop().time()
            self._idle[row.id] = Idle(row.idle_timeout_s, used, used + row.idle_timeout_s)
        self._earlier.set()

    async def used(self, rows: Iterable[ContainerRow]) -> None:
        """A call names these: they, and those above them, are not idle."""
        if not self._idle:
            return
        now = asyncio.get_running_loop().time()
        for row in rows:
            for name in await self._path(row):
                if (idle := self._idle.get(from_hex(name))) is not None:
                    idle.used, idle.look = now, now + idle.timeout_s

    async def _path(self, row: ContainerRow) -> Iterable[str]:
        running = self._containers.life.held.get(row.id)
        if running is not None:
            return running.path
        try:
            return await self._containers.life.path(row.id)
        except NotFound:
            return ()

    async def run(self) -> None:
        """Destroy what has had its time, until cancelled."""
        while True:
            self._earlier.clear()
            try:
                async with asyncio.timeout(self._next_s()):
                    await self._earlier.wait()
            except TimeoutError:
                await self._look_at_due()

    def _next_s(self) -> float | None:
        """How long until something is due; None if nothing ever is."""
        now, loop_now = time.time(), asyncio.get_running_loop().time()
        waits = [at - now for at in self._expire_at.values()] + [idle.look - loop_now for idle in self._idle.values()]
        return max(0.0, min(waits)) if waits else None

    async def _look_at_due(self) -> None:
        now, loop_now = time.time(), asyncio.get_running_loop().time()
        expired = [one for one, at in self._expire_at.items() if at <= now]
        idle = [one for one, found in self._idle.items() if found.look <= loop_now]
        for container_id in dict.fromkeys([*expired, *idle]):
            try:
                await self._look_at(container_id)
            except Exception:
                log.exception("a container whose time is over could not be destroyed", container=to_hex(container_id))

    async def _look_at(self, container_id: int) -> None:
        """Under the lock under which it is changed: a change that was answered counts."""
        async with self._containers.life.lock(container_id):
            row = await self._host.database.read(lambda c: hierarchy.get_container(c, container_id))
            if row is None:
                self._forget(container_id)
                return
            if row.expires_at is not None and row.expires_at <= time.time():
                why = "ttl"
            elif await self._is_idle(container_id):
                why = "idle_timeout"
            else:
                return
            self._forget(container_id)
            log.info("the time of a container is over", container=to_hex(container_id), limit=why)
            await self._containers.destructions.begin(container_id)

    def _forget(self, container_id: int) -> None:
        self._expire_at.pop(container_id, None)
        self._idle.pop(container_id, None)

    async def _is_idle(self, container_id: int) -> bool:
        """Whether it was not used for its time; looks at its processes, and notes when to look again."""
        idle, now = self._idle.get(container_id), asyncio.get_running_loop().time()
        if idle is None or idle.used + idle.timeout_s > now:
            return False
        if await self._has_work(container_id):
            idle.used, idle.look = now, now + idle.timeout_s / LOOKS
            return False
        return True

    async def _has_work(self, container_id: int) -> bool:
        """Whether a process other than inits is in it or below."""
        name = to_hex(container_id)
        inits = sum(name in running.path for running in self._containers.life.held.all().values())
        cgroup = self._host.cgroups.open(await self._containers.life.path(container_id))
        return len(await to_end(cgroup.pids_of_subtree)) > inits
