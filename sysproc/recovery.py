"""After a start: what the database says and what the kernel has are made to agree, and held again.

    row            kernel has                         then
    creating       anything or nothing                undone, as if it had never been asked for
    running,       its keeper (pid and start time)    its fds are taken from the keeper; frozen or thawed as recorded
      frozen       no keeper                          what is left is killed; stopped, with what the keeper wrote
    stopped        processes, cgroups, uid claims     killed, given back (a start that was cut off)
    destroying     anything or nothing                finished
    any            an exec without a supervisor       removed, if it was never started (`sysproc.exec_files`)
    no row         a directory, cgroup or uid claim   removed

Nothing else decides about leftovers: the verbs undo what they did themselves, or die and leave it to this.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial

import structlog

from sysproc.bring_up import adopt, limits_of
from sysproc.containers import Containers
from sysproc.errors import Unavailable
from sysproc.exec_files import remove_unstarted
from sysproc.failpoints import failpoint
from sysproc.host import Host
from sysproc.ids import to_hex
from sysproc.isolation.cgroups import Cgroup
from sysproc.running import RunningContainer
from sysproc.states import State
from sysproc.storage import hierarchy
from sysproc.storage.hierarchy import ContainerRow
from sysproc.take_apart import read_status, release_kernel_parts, remove_all
from sysproc.to_end import to_end

log = structlog.get_logger()

# For each subtree that was being destroyed.
DESTROY_PATIENCE_S = 10.0
# How many containers are looked at at any moment.
AT_ONCE = 8

Path = tuple[str, ...]


class Recovery:
    """Runs once, before the first call is answered."""

    def __init__(self, host: Host, containers: Containers) -> None:
        self._host, self._containers = host, containers

    async def run(self) -> None:
        """Make the record and the kernel agree."""
        rows = await self._host.database.read(hierarchy.all_containers)
        paths = paths_from_top(rows)
        for row in rows:
            self._containers.life.note(row)
        for level in levels(rows, paths):
            await at_once(partial(self._settle, row, paths[row.id]) for row in level)
        for row in rows:
            if row.state == State.CREATING:
                await self._undo_create(row, paths[row.id])
        await self._finish_destroys(tops(rows))
        await to_end(self._remove_unstarted, [row for row in rows if row.state != State.DESTROYING])
        await to_end(self._remove_strangers, {to_hex(row.id) for row in rows}, set(paths.values()))

    async def _settle(self, row: ContainerRow, path: Path) -> None:
        if State(row.state) in (State.RUNNING, State.FROZEN):
            await self._adopt_or_record(row, path)
        elif row.state == State.STOPPED:
            await to_end(self._sweep, path)

    async def _adopt_or_record(self, row: ContainerRow, path: Path) -> None:
        running = await to_end(adopt, self._host, row, path)
        if running is None:
            await self._record_end(row, path)
            return
        self._containers.life.hold(running)
        await to_end(self._as_recorded, row, running)
        failpoint("recovery.after_adopt")
        log.info("container adopted", container=path[-1], state=row.state)

    def _as_recorded(self, row: ContainerRow, running: RunningContainer) -> None:
        running.cgroup.set_limits(limits_of(row))
        if row.state == State.FROZEN:
            running.cgroup.freeze()
        else:
            running.cgroup.thaw()

    async def _record_end(self, row: ContainerRow, path: Path) -> None:
        cgroup = self._host.cgroups.open(path)
        oom_killed = await to_end(oom_kills, cgroup) > 0
        await to_end(self._sweep, path)
        how = read_status(self._host, row.id)
        await self._containers.life.record_end(row.id, how, oom_killed, None)
        log.warning("container had ended meanwhile", container=path[-1])

    def _sweep(self, path: Path) -> None:
        self._host.cgroups.open(path).kill_own()
        release_kernel_parts(self._host, path)

    async def _undo_create(self, row: ContainerRow, path: Path) -> None:
        await to_end(self._host.cgroups.open(path).kill)
        await to_end(remove_all, self._host, path)
        await self._host.database.write(lambda c: hierarchy.delete_container(c, row.id, only_in=(State.CREATING,)))
        log.warning("unfinished create undone", container=path[-1])

    async def _finish_destroys(self, rows: Sequence[ContainerRow]) -> None:
        """They go on by themselves, if one takes long or is stuck still: that keeps nobody from using the others."""
        under_way = [(row, await self._containers.destructions.begin(row.id)) for row in rows]
        for row, destruction in under_way:
            try:
                async with asyncio.timeout(DESTROY_PATIENCE_S):
                    async for _ in destruction.watch():
                        pass
            except (TimeoutError, Unavailable) as failure:
                log.error("unfinished destroy not finished yet", container=to_hex(row.id), error=str(failure))
            else:
                log.warning("unfinished destroy finished", container=to_hex(row.id))

    def _remove_unstarted(self, rows: Sequence[ContainerRow]) -> None:
        for row in rows:
            remove_unstarted(self._host.state_dir.container(to_hex(row.id)).execs)

    def _remove_strangers(self, known: set[str], paths: set[Path]) -> None:
        for name in self._host.state_dir.container_names() - known:
            self._host.state_dir.remove_container(name)
        for path in sorted(self._host.cgroups.leftovers(), key=len, reverse=True):
            if tuple(path) not in paths:
                self._host.cgroups.open(path).kill()
                self._host.cgroups.open(path).remove()


async def at_once(settling: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """Run them, a few at any moment: while one waits for the disk, others are in the kernel."""
    few = asyncio.Semaphore(AT_ONCE)

    async def in_turn(one: Callable[[], Awaitable[None]]) -> None:
        async with few:
            await one()

    async with asyncio.TaskGroup() as tasks:
        for one in settling:
            tasks.create_task(in_turn(one))


def levels(rows: Sequence[ContainerRow], paths: Mapping[int, Path]) -> list[list[ContainerRow]]:
    """The rows by depth, the tops first."""
    depths = sorted({len(path) for path in paths.values()})
    return [[row for row in rows if len(paths[row.id]) == depth] for depth in depths]


def oom_kills(cgroup: Cgroup) -> int:
    """How often the kernel has ended a process for memory; 0 where the cgroup is gone (the host was restarted)."""
    try:
        kills: int = cgroup.oom_kills()
        return kills
    except FileNotFoundError:
        return 0


def paths_from_top(rows: list[ContainerRow]) -> dict[int, Path]:
    """The path of ids of each container; parents come before their children in the rows."""
    paths: dict[int, Path] = {}
    for row in rows:
        above = paths[row.parent_id] if row.parent_id is not None else ()
        paths[row.id] = (*above, to_hex(row.id))
    return paths


def tops(rows: list[ContainerRow]) -> list[ContainerRow]:
    """The containers that are being destroyed, without those below another such one."""
    doomed = {row.id for row in rows if row.state == State.DESTROYING}
    return [row for row in rows if row.id in doomed and row.parent_id not in doomed]
