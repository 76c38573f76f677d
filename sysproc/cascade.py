"""Taking a killed subtree apart: each member as soon as it has ended, in batches, recorded in batches.

    init of each ended ──▶ whose turn it is (`sysproc.deepest_first`) ──▶ a few threads: cgroups, uid range, files
                                                                             │
                       reported to who watches ◀── rows deleted, one transaction for all that are gone by then

The kernel ends containers, threads give back what is left, the database writes, all at the same time. One that does
not end (a process in the kernel's disk sleep) holds up its ancestors only; when nothing has happened for a long time
it is given up, until somebody destroys again. Who begins this is `sysproc.destroy`; the steps for one container are in
`sysproc.take_apart`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from weakref import WeakValueDictionary

from sysproc.deepest_first import DeepestFirst
from sysproc.host import Host
from sysproc.running import RunningContainers
from sysproc.storage.hierarchy import ContainerRow
from sysproc.take_apart import take_many_apart
from sysproc.to_end import to_end

BATCH, THREADS = 16, 3
# How long what is deeper is waited for although nothing happens, and how long anything is.
ORDER_PATIENCE_S, PATIENCE_S = 1.0, 30.0
# Somebody is still in it: it is looked at again after so long, and then twice as long, and so on.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 0.2
NOT_ENDED = "its processes do not end; one may be stuck in the kernel"

Path = tuple[str, ...]
Record = Callable[[Sequence[ContainerRow]], Awaitable[None]]


class Cascade:
    """One destruction at work; run it once, from the daemon's event loop."""

    def __init__(
        self,
        host: Host,
        held: RunningContainers,
        locks: WeakValueDictionary[int, asyncio.Lock],
        doomed: Sequence[ContainerRow],
        paths: Mapping[int, Path],
    ) -> None:
        self._host, self._held, self._locks = host, held, locks
        self._doomed, self._paths, self._order = doomed, paths, DeepestFirst(doomed)
        self._pauses: dict[int, float] = {}
        self._news, self._at_work, self._last = asyncio.Event(), 0, 0.0
        self._gone: list[ContainerRow] = []
        self._to_record: asyncio.Queue[ContainerRow | None] = asyncio.Queue()
        self.stuck: list[tuple[ContainerRow, str]] = []

    async def run(self, record: Record) -> None:
        """Until each is gone and recorded, or is in `stuck`, or stands above one that is."""
        async with asyncio.TaskGroup() as tasks:
            recording = tasks.create_task(self._record(record))
            waits = [tasks.create_task(self._wait_ended(row)) for row in self._doomed]
            await self._work(tasks)
            for wait in waits:
                wait.cancel()
            self._to_record.put_nowait(None)
            await recording

    # -- who has ended

    async def _wait_ended(self, row: ContainerRow) -> None:
        """Whatever was done with it when it was marked has been finished or undone; then its init ends."""
        async with self._locks.setdefault(row.id, asyncio.Lock()):
            running = self._held.get(row.id)
            if running is not None:
                self._held.expect_end(row.id)
                await running.ended.wait()
                self._host.sockets.remove(row.id)
                self._held.discard(row.id)
        self._ended(row)

    def _ended(self, row: ContainerRow) -> None:
        self._order.ended(row)
        self._tell()

    def _tell(self) -> None:
        """Something has happened."""
        self._last = asyncio.get_running_loop().time()
        self._news.set()

    # -- what is done

    async def _work(self, tasks: asyncio.TaskGroup) -> None:
        self._tell()
        while not self._order.over:
            while self._at_work < THREADS and (batch := self._order.take(BATCH)):
                self._at_work += 1
                tasks.create_task(self._take_apart(batch, tasks))
            await self._next_news()

    async def _next_news(self) -> None:
        """Wait until something happens; who has been waited for in vain is waited for no more."""
        self._news.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(ORDER_PATIENCE_S):
                await self._news.wait()
        quiet_s = asyncio.get_running_loop().time() - self._last
        if quiet_s > ORDER_PATIENCE_S:
            self._order.overdue()
        if quiet_s > PATIENCE_S and not self._at_work:
            for row in self._order.waiting():
                self._fail(row, NOT_ENDED)

    async def _take_apart(self, batch: Sequence[ContainerRow], tasks: asyncio.TaskGroup) -> None:
        results = await to_end(take_many_apart, self._host, [self._paths[row.id] for row in batch])
        self._at_work -= 1
        for row, result in zip(batch, results, strict=True):
            if result is True:
                self._order.gone(row)
                self._to_record.put_nowait(row)
            elif result is False:
                self._order.again(row)
                tasks.create_task(self._look_again(row))
            else:
                self._fail(row, str(result))
        if any(result is not False for result in results):
            self._tell()
        self._news.set()

    async def _look_again(self, row: ContainerRow) -> None:
        pause = self._pauses.get(row.id, _FIRST_PAUSE_S)
        self._pauses[row.id] = min(2 * pause, _LONGEST_PAUSE_S)
        await asyncio.sleep(pause)
        self._order.ended(row)
        self._news.set()

    def _fail(self, row: ContainerRow, why: str) -> None:
        self._order.failed(row)
        self.stuck.append((row, why))

    # -- what is recorded

    async def _record(self, record: Record) -> None:
        """Whatever has gone while the last transaction was written is in the next one."""
        while (row := await self._to_record.get()) is not None:
            rows, last = [row], False
            while not self._to_record.empty() and not last:
                more = self._to_record.get_nowait()
                last = more is None
                rows += [] if more is None else [more]
            await record(rows)
            if last:
                return
