"""Destroying subtrees: marked at once, killed at once, taken apart; finished at the next start if the service dies.

    mark all (one transaction), no more calls from inside -> kill all by the top cgroup -> give back what each had,
    deepest first (`sysproc.cascade`) -> delete the rows of those that are gone (one transaction a batch) -> report
    -> delete the volumes that were theirs and that nobody has inherited

One that is stuck (a process in the kernel's disk sleep) holds up its ancestors only. The record that callers watch is
in `sysproc.destruction`.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from weakref import WeakValueDictionary

import msgspec
import structlog
from sqlalchemy import Connection

from sysproc.cascade import Cascade
from sysproc.destruction import Destruction
from sysproc.failpoints import failpoint
from sysproc.host import Host
from sysproc.ids import to_hex
from sysproc.once import TaskOwner
from sysproc.running import RunningContainers
from sysproc.storage import doomed, hierarchy, requests, volumes
from sysproc.storage.hierarchy import ContainerRow
from sysproc.storage.requests import RequestKey
from sysproc.to_end import to_end

log = structlog.get_logger()

Path = tuple[str, ...]


class Destructions:
    """All destructions under way; one instance, used from one event loop."""

    def __init__(
        self,
        host: Host,
        tasks: TaskOwner,
        held: RunningContainers,
        locks: WeakValueDictionary[int, asyncio.Lock],
    ) -> None:
        self._host, self._tasks, self._held, self._locks = host, tasks, held, locks
        self._under_way: list[Destruction] = []

    def of(self, container_id: int) -> Destruction | None:
        """The destruction that takes this container with it, if one is under way."""
        return next((one for one in self._under_way if container_id in one.ids), None)

    async def begin(self, container_id: int, request: RequestKey | None = None) -> Destruction:
        """Mark the subtree and start; from the return on nothing of it can be used. Raises NotFound."""
        under_way = self.of(container_id)
        if under_way is not None:
            return under_way
        path, rows, with_volumes = await self._host.database.write(lambda c: mark(c, container_id))
        failpoint("containers.destroy.after_mark")
        destruction = Destruction(rows)
        self._under_way.append(destruction)
        for row in rows:
            self._host.sockets.gone(row.id)
        self._tasks.start(self._run(destruction, path, request, with_volumes))
        return destruction

    async def _run(self, destruction: Destruction, top: Path, request: RequestKey | None, with_volumes: bool) -> None:
        try:
            await to_end(self._host.cgroups.open(top).kill)
            failpoint("containers.destroy.after_kill")
            paths = full_paths(destruction.doomed, top)
            cascade = Cascade(self._host, self._held, self._locks, destruction.doomed, paths)
            await cascade.run(lambda gone: self._record(destruction, gone, request))
            if with_volumes:
                await self._delete_volumes()
            await destruction.report((), cascade.stuck)
        except Exception as failure:
            log.exception("destroy failed", container=top[-1])
            await destruction.report((), [(destruction.doomed[-1], reason_of(failure))])
        finally:
            self._under_way.remove(destruction)
            await destruction.finish()

    async def _delete_volumes(self) -> None:
        """Those whose owners are gone; of one that is stuck they wait for it."""
        for row in await self._host.database.read(volumes.doomed):
            async with self._host.volume_files.lock(row.id):
                await to_end(self._host.volume_files.remove, row)
                failpoint("containers.destroy.after_volume")
                gone = partial(volumes.delete_volume, volume_id=row.id, only_in=(volumes.DELETING,))
                await self._host.database.write(gone)

    async def _record(self, destruction: Destruction, gone: Sequence[ContainerRow], request: RequestKey | None) -> None:
        """Delete the rows of those that are gone and, with the last, remember the answer to the request."""
        remembered = request if destruction.doomed[-1] in gone else None

        def write(connection: Connection) -> None:
            doomed.delete_doomed(connection, gone)
            if remembered is not None:
                requests.remember(connection, remembered, msgspec.json.encode(list(destruction.doomed)))

        await self._host.database.write(write)
        failpoint("containers.destroy.after_delete")
        await destruction.report(gone)


def mark(connection: Connection, container_id: int) -> tuple[Path, Sequence[ContainerRow], bool]:
    """Where the container is, and its subtree, deepest first, marked from now on; whether volumes are to be deleted.

    Raises NotFound.
    """
    path = tuple(to_hex(one) for one in hierarchy.path_of(connection, container_id))
    rows = doomed.begin_destroy(connection, container_id)
    return path, rows, volumes.any_deleting(connection)


def reason_of(failure: Exception) -> str:
    """For people; of several that failed at the same time the first."""
    return reason_of(failure.exceptions[0]) if isinstance(failure, ExceptionGroup) else str(failure)


def full_paths(rows: Sequence[ContainerRow], top: Path) -> dict[int, Path]:
    """The path of ids of each doomed container; the last one is the top itself."""
    paths = {rows[-1].id: top}
    for row in reversed(rows[:-1]):
        paths[row.id] = (*paths[row.parent_id or 0], to_hex(row.id))
    return paths
