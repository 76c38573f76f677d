"""The verbs of containers: create, start, stop, freeze, thaw, update, destroy, get and list.

The way in for `sysproc.server`. Each verb changes the kernel first or the record first so that a crash in between is
found at the next start (`sysproc.recovery`). The steps are next door: `sysproc.lifecycle`, `sysproc.destroy`; the
states and what may follow what are in `sysproc.states`. Nothing of gRPC belongs here, nor who may call what.
"""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from sqlalchemy import Connection

from sysproc.bring_up import limits_of
from sysproc.destroy import Destructions
from sysproc.errors import Aborted, PermissionDenied
from sysproc.failpoints import failpoint
from sysproc.host import Host
from sysproc.ids import to_hex
from sysproc.isolation.cgroups import Cgroup, Limits
from sysproc.lifecycle import Lifecycle, Wanted, check
from sysproc.once import TaskOwner
from sysproc.running import RunningContainer
from sysproc.states import State, Step, refused, target
from sysproc.storage import hierarchy, quotas, requests
from sysproc.storage.hierarchy import ContainerRow, NewContainer, Page
from sysproc.storage.requests import RequestKey
from sysproc.to_end import to_end

KERNEL = frozenset({"memory_bytes", "cpu_millis", "pids"})

__all__ = ["Change", "Containers", "Listing", "Wanted"]


@dataclass(frozen=True)
class Change:
    """What UpdateContainer sets: columns of the record by name, None clears.

    asked_by: the container of the caller, None on the host. One that changes itself may lower its limits, and nothing
    else.
    """

    asked_by: int | None
    columns: Mapping[str, Any]


@dataclass(frozen=True)
class Listing:
    """Which containers ListContainers shows: at most `limit` after the token `after`, those with all these labels.

    itself: the one that they are below as well.
    """

    itself: bool
    children_only: bool
    labels: Mapping[str, str]
    limit: int
    after: str


class Containers:
    """All containers of this daemon; one instance, used from one event loop."""

    def __init__(self, host: Host, tasks: TaskOwner) -> None:
        self._host = host
        self.life = Lifecycle(host, tasks)
        self.destructions = Destructions(host, tasks, self.life.held, self.life.locks)

    # -- reading

    async def get(self, container_id: int) -> ContainerRow:
        """The container as recorded; raises NotFound."""
        return await self.life.get(container_id)

    async def list(self, below: ContainerRow | None, listing: Listing) -> Page:
        """A page of the containers below one, or of all (None), oldest first."""
        return await self._host.database.read(
            lambda c: hierarchy.list_page(
                c,
                None if below is None else below.id,
                itself=listing.itself,
                children_only=listing.children_only,
                labels=listing.labels,
                limit=listing.limit,
                after=listing.after,
            )
        )

    async def as_they_are(self, rows: Sequence[ContainerRow]) -> Sequence[ContainerRow]:
        """The rows, with what only the kernel knows while a container runs: whether it has killed in it for memory."""
        held = [None if row.oom_killed else self.held(row) for row in rows]
        if not any(held):
            return rows
        kills = await to_end(lambda: [0 if one is None else one.cgroup.oom_kills() for one in held])
        return [replace(row, oom_killed=row.oom_killed or some > 0) for row, some in zip(rows, kills, strict=True)]

    async def names(self, row: ContainerRow, below: int | None) -> Sequence[str]:
        """The path of names from one above it (None: the top); the id where a container has no name."""
        return await self._host.database.read(lambda c: hierarchy.names_of(c, row.id, below))

    async def running(self, row: ContainerRow) -> RunningContainer:
        """The fds of a container in which a process can be started; raises FailedPrecondition if it does not run."""
        running = self.life.held.get(row.id)
        if running is None or row.state != State.RUNNING:
            raise refused(to_hex(row.id), State(row.state), "used for starting processes")
        self.life.held.check_thawed(running.path)
        return running

    def check_lives(self, row: ContainerRow) -> None:
        """Raise FailedPrecondition if it is being destroyed: nothing of it can be used any more."""
        if row.state == State.DESTROYING:
            raise refused(to_hex(row.id), State.DESTROYING, "used")

    def held(self, row: ContainerRow) -> RunningContainer | None:
        """The fds of a container that runs or is frozen, or None."""
        return self.life.held.get(row.id)

    # -- create, start, stop: the steps are in `sysproc.lifecycle`

    async def create(self, wanted: Wanted, request: RequestKey | None = None) -> ContainerRow:
        """Make a container and, unless told not to, start it. Idempotent by the request's id."""
        return await self.life.create(wanted, request)

    async def validate(self, wanted: Wanted) -> NewContainer:
        """What create would make, without an id; raises what it would raise, as far as that can be known."""
        return await self.life.validate(wanted)

    async def start(self, row: ContainerRow) -> ContainerRow:
        """Start a stopped container on the root that it has; a running one is left as it is."""
        return await self.life.start(row)

    async def stop(self, row: ContainerRow, grace_s: float) -> ContainerRow:
        """Stop a container, not what is below it: SIGTERM, and after the grace period SIGKILL, to all in it."""
        return await self.life.stop(row, grace_s)

    # -- freeze, thaw, update

    async def freeze(self, row: ContainerRow) -> ContainerRow:
        """Suspend all processes of a container and of all below it."""
        return await self.life.once.run(None, lambda: self._freeze_or_thaw(row.id, Step.FREEZE))

    async def thaw(self, row: ContainerRow) -> ContainerRow:
        """Let a frozen container go on."""
        return await self.life.once.run(None, lambda: self._freeze_or_thaw(row.id, Step.THAW))

    async def _freeze_or_thaw(self, container_id: int, step: Step) -> ContainerRow:
        async with self.life.lock(container_id):
            row = await self.life.get(container_id)
            if row.state == target(step):
                return row
            check(row, step, "frozen" if step is Step.FREEZE else "thawed")
            running = await self.life.must_hold(row)
            freezing = step is Step.FREEZE
            await to_end(running.cgroup.freeze if freezing else running.cgroup.thaw)
            failpoint("containers.freeze.after_kernel")
            return await self.life.record(row.id, step, "frozen by request" if freezing else "thawed by request")

    async def update(self, row: ContainerRow, change: Change, etag: str) -> ContainerRow:
        """Change limits and labels; the kernel first, so that what is recorded is what holds."""
        return await self.life.once.run(None, lambda: self._update(row.id, change, etag))

    async def _update(self, container_id: int, change: Change, etag: str) -> ContainerRow:
        async with self.life.lock(container_id):
            row = await self.life.get(container_id)
            check_etag(row, etag)
            if row.state == State.DESTROYING:
                raise refused(to_hex(row.id), State.DESTROYING, "changed")
            if change.asked_by == row.id:
                check_lowers(row, change)
            limits = replace(limits_of(row), **{name: change.columns[name] for name in KERNEL & change.columns.keys()})
            cgroup = self._host.cgroups.open(await self.life.path(row.id))
            async with self._host.limits_lock:
                await to_end(set_if_there, cgroup, limits)
                failpoint("containers.update.after_kernel")
                try:
                    return await self._record_update(row, change)
                except BaseException:
                    await to_end(set_if_there, cgroup, limits_of(row))
                    raise

    async def _record_update(self, row: ContainerRow, change: Change) -> ContainerRow:
        asker, columns = self.life.asker(change.asked_by), dict(change.columns)
        if "ttl_s" in columns:
            columns["expires_at"] = None if columns["ttl_s"] is None else time.time() + columns["ttl_s"]

        def write(connection: Connection) -> ContainerRow:
            limits = {name: value for name, value in columns.items() if name in quotas.UNITS}
            quotas.check_change(connection, row, limits, asker)
            return hierarchy.update_container(connection, row.id, **columns)

        changed = await self._host.database.write(write)
        self.life.note(changed)
        return changed

    # -- destroy: the steps are in `sysproc.destroy`

    async def doomed(self, row: ContainerRow) -> Sequence[ContainerRow]:
        """What destroying this container would destroy, deepest first."""
        return await self._host.database.read(lambda c: hierarchy.subtree(c, row.id))

    async def destroy(
        self, row: ContainerRow, etag: str = "", request: RequestKey | None = None
    ) -> AsyncIterator[ContainerRow]:
        """Destroy a container and everything below it; yields each as it goes, deepest first."""
        destruction = self.destructions.of(row.id)
        if destruction is None:
            check_etag(row, etag)
            destruction = await self.life.once.run(None, lambda: self.destructions.begin(row.id, request))
        async for gone in destruction.watch():
            yield gone

    async def destroyed_before(self, request: RequestKey) -> Sequence[ContainerRow] | None:
        """What a destroy with this request_id has destroyed already; None if there was none."""
        answer = await self._host.database.read(lambda c: requests.recall(c, request))
        return None if answer is None else msgspec.json.decode(answer, type=list[ContainerRow])


def set_if_there(cgroup: Cgroup, limits: Limits) -> None:
    """Let the kernel hold these limits, also of a stopped container below which others run."""
    if cgroup.exists:
        cgroup.set_limits(limits)


def check_lowers(row: ContainerRow, change: Change) -> None:
    """Raise PermissionDenied for what a container may not do to itself: anything but lowering limits."""
    for name, value in change.columns.items():
        now = getattr(row, name)
        if name not in quotas.UNITS or value is None or (now is not None and value > now):
            raise PermissionDenied(
                "A container may lower its own limits, and change nothing else of itself.",
                resolution="Ask whoever is above it.",
                reason="ONLY_DOWNWARD",
            )


def check_etag(row: ContainerRow, etag: str) -> None:
    """Raise Aborted where the caller saw another state of the container than the present one."""
    if etag and etag != row.etag:
        raise Aborted(
            f"Container {to_hex(row.id)} has changed since it was read.",
            resolution="Read it again, and repeat the request with the new etag if it still fits.",
            reason="ETAG_MISMATCH",
            metadata={"etag": row.etag},
        )
