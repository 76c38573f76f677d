"""Destroying subtrees: the steps, in batches, each finished at the next start if the service dies in between.

    mark all (one transaction) -> kill all by the top cgroup -> deepest level first, in batches:
        processes gone, socket, cgroups, files, uid range of each -> rows of the batch (one transaction) -> reported

One that is stuck (a process in the kernel's disk sleep) holds up its ancestors only. The record that callers watch is
in `sysproc.destruction`, the steps for one container in `sysproc.take_apart`.
"""

import asyncio
from collections.abc import Iterator, Sequence
from weakref import WeakValueDictionary

import msgspec
import structlog
from sqlalchemy import Connection

from sysproc.destruction import Destruction
from sysproc.failpoints import failpoint
from sysproc.host import Host
from sysproc.ids import to_hex
from sysproc.once import TaskOwner
from sysproc.running import RunningContainers
from sysproc.states import State
from sysproc.storage import hierarchy, requests
from sysproc.storage.hierarchy import ContainerRow
from sysproc.storage.requests import RequestKey
from sysproc.take_apart import take_apart
from sysproc.to_end import to_end

log = structlog.get_logger()

BATCH = 32

Stuck = tuple[ContainerRow, str]
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
        path = await self._path(container_id)
        doomed = await self._host.database.write(lambda c: hierarchy.begin_destroy(c, container_id))
        failpoint("containers.destroy.after_mark")
        destruction = Destruction(doomed)
        self._under_way.append(destruction)
        self._tasks.start(self._run(destruction, path, request))
        return destruction

    async def _path(self, container_id: int) -> Path:
        ids = await self._host.database.read(lambda c: hierarchy.path_of(c, container_id))
        return tuple(to_hex(one) for one in ids)

    async def _run(self, destruction: Destruction, top: Path, request: RequestKey | None) -> None:
        try:
            await to_end(self._host.cgroups.open(top).kill)
            failpoint("containers.destroy.after_kill")
            paths = full_paths(destruction.doomed, top)
            for batch in batches(destruction.doomed, paths):
                await self._destroy_batch(destruction, batch, paths, request)
        except Exception as failure:
            log.exception("destroy failed", container=top[-1])
            await destruction.report((), [(row, str(failure)) for row in destruction.doomed[-1:]])
        finally:
            self._under_way.remove(destruction)
            await destruction.finish()

    async def _destroy_batch(
        self,
        destruction: Destruction,
        batch: Sequence[ContainerRow],
        paths: dict[int, Path],
        request: RequestKey | None,
    ) -> None:
        results = await asyncio.gather(*(self._take_apart(row, paths[row.id]) for row in batch))
        gone = [row for row, why in results if why is None]
        complete = destruction.doomed[-1] in gone
        remembered = (request, destruction.doomed) if request is not None and complete else None
        await self._host.database.write(lambda c: delete_rows(c, gone, remembered))
        failpoint("containers.destroy.after_delete")
        await destruction.report(gone, [(row, why) for row, why in results if why is not None])

    async def _take_apart(self, row: ContainerRow, path: Path) -> tuple[ContainerRow, str | None]:
        try:
            async with self._locks.setdefault(row.id, asyncio.Lock()):
                await take_apart(self._host, self._held, row, path)
        except Exception as failure:
            log.warning("container cannot be destroyed yet", container=path[-1], error=str(failure))
            return row, str(failure) or type(failure).__name__
        return row, None


def delete_rows(
    connection: Connection,
    gone: Sequence[ContainerRow],
    remembered: tuple[RequestKey, Sequence[ContainerRow]] | None,
) -> None:
    """Delete the rows of one batch and, with the last, remember the answer to the request."""
    for row in gone:
        hierarchy.delete_container(connection, row.id, only_in=(State.DESTROYING,))
    if remembered is not None:
        request, doomed = remembered
        requests.remember(connection, request, msgspec.json.encode(list(doomed)))


def full_paths(doomed: Sequence[ContainerRow], top: Path) -> dict[int, Path]:
    """The path of ids of each doomed container; the last one is the top itself."""
    paths = {doomed[-1].id: top}
    for row in reversed(doomed[:-1]):
        paths[row.id] = (*paths[row.parent_id or 0], to_hex(row.id))
    return paths


def batches(doomed: Sequence[ContainerRow], paths: dict[int, Path]) -> Iterator[list[ContainerRow]]:
    """Groups of containers of one depth, so that within a group the order does not matter."""
    batch: list[ContainerRow] = []
    for row in doomed:
        if batch and (len(batch) == BATCH or len(paths[row.id]) != len(paths[batch[0].id])):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
