"""The life of one container: created, started, stopped, ended by itself.

    intention recorded -> root | uid range, cgroups; processes (`sysproc.bring_up`) -> recorded as running -> held
    SIGTERM, grace, SIGKILL -> keeper has ended -> parts given back (`sysproc.take_apart`) -> recorded as stopped

Every change of one container happens under its lock, as a task of the daemon's: a caller that goes away does not
leave it half done. The other verbs, and the way in, are in `sysproc.containers`.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import msgspec
import structlog
from sqlalchemy import Connection

from sysproc.bring_up import bring_up
from sysproc.errors import Internal
from sysproc.failpoints import failpoint
from sysproc.host import Host
from sysproc.ids import new_container_id, to_hex
from sysproc.isolation.cgroups import Limits
from sysproc.linux.pidfd import pidfd_send_signal
from sysproc.once import Once, TaskOwner
from sysproc.running import RunningContainer, RunningContainers
from sysproc.states import State, Step, refused, sources, target
from sysproc.storage import hierarchy, quotas, requests
from sysproc.storage.hierarchy import ContainerRow, NewContainer
from sysproc.storage.quotas import Asker
from sysproc.storage.requests import RequestKey
from sysproc.take_apart import HowItEnded, read_status, release_kernel_parts, wait_ended
from sysproc.to_end import to_end

log = structlog.get_logger()

KILLED_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Wanted:
    """A container that somebody asks for; the fields are checked already (`sysproc.server.validate`).

    asked_by: the container of the caller, None on the host.
    """

    asked_by: int | None
    parent_id: int | None
    name: str
    image: str
    hostname: str
    limits: Limits
    root_bytes: int | None
    environment: tuple[tuple[bytes, bytes], ...]
    labels: Mapping[str, str]
    profile: str
    stopped: bool
    descendants: int | None = None
    depth: int | None = None
    storage_bytes: int | None = None
    overcommit: bool = False
    ttl_s: float | None = None
    idle_timeout_s: float | None = None
    api_users: str = ""
    delegate: bool = False


class Lifecycle:
    """Creates, starts and stops containers, and notices when one ends; one instance, from one event loop."""

    def __init__(self, host: Host, tasks: TaskOwner) -> None:
        self._host, self._tasks = host, tasks
        self.once = Once(tasks)
        self.held = RunningContainers(self._keeper_ended)
        self.locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self.on_noted: Callable[[ContainerRow], None] = lambda _: None

    async def get(self, container_id: int) -> ContainerRow:
        """The container as recorded; raises NotFound."""
        row = self._host.database.look(lambda c: hierarchy.get_container(c, container_id))
        if row is None:
            raise hierarchy.no_container(container_id)
        return row

    # -- create and start

    async def create(self, wanted: Wanted, request: RequestKey | None = None) -> ContainerRow:
        """Make a container and, unless told not to, start it. Idempotent by the request's id."""
        stored = self._stored(request)
        if stored is not None:
            return stored
        return await self.once.run(request, lambda: self._create(wanted, request))

    async def validate(self, wanted: Wanted) -> NewContainer:
        """What create would make, without an id; raises what it would raise, as far as that can be known."""
        new = self._new_row(0, wanted)
        await self._host.database.read(lambda c: check_new(self._host, c, new, self.asker(wanted.asked_by)))
        return new

    def _stored(self, request: RequestKey | None) -> ContainerRow | None:
        if request is None:
            return None
        answer = self._host.database.look(lambda c: requests.recall(c, request))
        return None if answer is None else msgspec.json.decode(answer, type=ContainerRow)

    async def _create(self, wanted: Wanted, request: RequestKey | None) -> ContainerRow:
        database, container_id = self._host.database, new_container_id()
        new = self._new_row(container_id, wanted)
        async with self.lock(container_id):
            async with self._host.storage_lock:
                row = await database.write(lambda c: insert(self._host, c, new, self.asker(wanted.asked_by)))
            self.note(row)
            async with self._unless_doomed(row.id, "created"):
                root = asyncio.ensure_future(self._make_root(row))
                try:
                    return await self._first_start(row, root, wanted.stopped, request)
                except BaseException:
                    await asyncio.gather(root, return_exceptions=True)
                    await self._undo_create(row)
                    raise

    async def _make_root(self, row: ContainerRow) -> None:
        failpoint("containers.create.after_intention")
        await self._host.images.make_root(row.image_digest, row.root_bytes, to_hex(row.id))
        failpoint("containers.create.after_root")

    @asynccontextmanager
    async def _unless_doomed(self, container_id: int, verb: str) -> AsyncIterator[None]:
        """What fails because a destroy came in between is refused for that reason, wherever it failed."""
        try:
            yield
        except Exception as failure:
            row = self._host.database.look(lambda c: hierarchy.get_container(c, container_id))
            if row is not None and row.state == State.DESTROYING:
                raise refused(to_hex(container_id), State.DESTROYING, verb) from failure
            raise

    async def _first_start(
        self, row: ContainerRow, root: Awaitable[object], stopped: bool, request: RequestKey | None
    ) -> ContainerRow:
        if stopped:
            await root
            return await self.record(row.id, Step.LEFT_STOPPED, "created, not started", request)
        return await self._start(row, Step.STARTED, request, root)

    async def _start(
        self, row: ContainerRow, step: Step, request: RequestKey | None = None, root: Awaitable[object] | None = None
    ) -> ContainerRow:
        path = await self.path(row.id)
        self.held.check_thawed(path)
        running, columns = await bring_up(self._host, row, path, root)
        try:
            row = await self.record(row.id, step, "started", request, **columns)
            failpoint("containers.start.after_commit")
        except BaseException:
            await to_end(self._end_unrecorded, running)
            raise
        self.hold(running)
        return row

    def _end_unrecorded(self, running: RunningContainer) -> None:
        running.cgroup.kill_own()
        running.close()
        release_kernel_parts(self._host, running.path)

    def hold(self, running: RunningContainer) -> None:
        """Answer on the container's socket, and notice its end."""
        self.held.add(running)
        self._host.sockets.add(running.id, running.listener_fd, running.uid_base, running.api_users)

    async def _undo_create(self, row: ContainerRow) -> None:
        """Nothing of a create that failed is left, unless a destroy has taken it over meanwhile."""
        await to_end(self._host.state_dir.remove_container, to_hex(row.id))
        await self._host.database.write(lambda c: hierarchy.delete_container(c, row.id, only_in=(State.CREATING,)))

    async def start(self, row: ContainerRow) -> ContainerRow:
        """Start a stopped container on the root that it has; a running one is left as it is."""
        return await self.once.run(None, lambda: self._start_stopped(row.id))

    async def _start_stopped(self, container_id: int) -> ContainerRow:
        async with self.lock(container_id):
            row = await self.get(container_id)
            if row.state == State.RUNNING:
                return row
            check(row, Step.START, "started")
            async with self._unless_doomed(row.id, "started"):
                return await self._start(row, Step.START)

    # -- stop

    async def stop(self, row: ContainerRow, grace_s: float) -> ContainerRow:
        """Stop a container, not what is below it: SIGTERM, and after the grace period SIGKILL, to all in it."""
        return await self.once.run(None, lambda: self._stop(row.id, grace_s))

    async def _stop(self, container_id: int, grace_s: float) -> ContainerRow:
        async with self.lock(container_id):
            row = await self.get(container_id)
            if row.state == State.STOPPED:
                return row
            check(row, Step.INIT_ENDED, "stopped")
            running = self.held.get(row.id)
            if running is None:
                return await self.get(container_id)
            if row.state == State.FROZEN:
                await to_end(running.cgroup.thaw)
            pidfd_send_signal(running.init_pidfd, signal.SIGTERM)
            failpoint("containers.stop.after_sigterm")
            if not await wait_ended(running, grace_s):
                await to_end(running.cgroup.kill_own)
                failpoint("containers.stop.after_kill")
                await self._insist(running)
            return await self._settle(running, "stopped by request")

    async def _insist(self, running: RunningContainer) -> None:
        if not await wait_ended(running, KILLED_TIMEOUT_S):
            raise Internal(
                f"Container {to_hex(running.id)} was killed, but a process in it does not end.",
                details="It is probably waiting for a disk or a device inside the kernel.",
                resolution="Look at its processes (`sysproc ps`), mend the device, then stop it again.",
                reason="PROCESS_STUCK",
            )

    def _keeper_ended(self, container_id: int) -> None:
        self._tasks.start(self._ended_by_itself(container_id))

    async def _ended_by_itself(self, container_id: int) -> None:
        async with self.lock(container_id):
            running = self.held.get(container_id)
            row = self._host.database.look(lambda c: hierarchy.get_container(c, container_id))
            if running is None or row is None or row.state not in sources(Step.INIT_ENDED):
                return
            await to_end(running.cgroup.kill_own)
            row = await self._settle(running, None)
            log.info("container ended", container=to_hex(container_id), reason=row.reason)

    async def _settle(self, running: RunningContainer, reason: str | None) -> ContainerRow:
        """Record how a container ended and give back what only a running one needs."""
        how = read_status(self._host, running.id)
        oom_killed = await to_end(running.cgroup.oom_kills) > 0
        self._host.sockets.remove(running.id)
        self.held.discard(running.id)
        await to_end(release_kernel_parts, self._host, running.path)
        failpoint("containers.stop.after_release")
        return await self.record_end(running.id, how, oom_killed, reason)

    async def record_end(
        self, container_id: int, how: HowItEnded, oom_killed: bool, reason: str | None
    ) -> ContainerRow:
        """Write that a container has stopped, and how."""
        columns: dict[str, Any] = {"exit_code": how.exit_code, "exit_signal": how.exit_signal, "oom_killed": oom_killed}
        why = reason or how.sentence(oom_killed)
        return await self.record(container_id, Step.INIT_ENDED, why, **columns)

    # -- shared by the verbs

    async def path(self, container_id: int) -> tuple[str, ...]:
        """The ids from the top of the tree to this container: its place in every cgroup hierarchy."""
        ids = self._host.database.look(lambda c: hierarchy.path_of(c, container_id))
        return tuple(to_hex(one) for one in ids)

    def lock(self, container_id: int) -> asyncio.Lock:
        """Whoever changes this container holds it."""
        return self.locks.setdefault(container_id, asyncio.Lock())

    async def must_hold(self, row: ContainerRow) -> RunningContainer:
        """The fds of a container that runs or is frozen; raises FailedPrecondition if it has just ended."""
        running = self.held.get(row.id)
        if running is None:
            raise refused(to_hex(row.id), State.STOPPED, "used")
        return running

    async def record(
        self, container_id: int, step: Step, reason: str, request: RequestKey | None = None, **columns: Any
    ) -> ContainerRow:
        """Write the state that a step leads to, its event, and the answer to the request, in one transaction."""

        def write(connection: Connection) -> ContainerRow:
            row = hierarchy.transition(
                connection,
                container_id,
                to=target(step),
                reason=reason,
                allowed_from=sources(step),
                **columns,
            )
            if request is not None:
                requests.remember(connection, request, msgspec.json.encode(row))
            return row

        return await self._host.database.write(write)

    def _new_row(self, container_id: int, wanted: Wanted) -> NewContainer:
        content = self._host.images.find(wanted.image)
        root_bytes = self._host.images.root_bytes(wanted.image, content, wanted.root_bytes)
        if wanted.delegate:
            self._host.cgroups.check_delegation()
        return NewContainer(
            id=container_id,
            parent_id=wanted.parent_id,
            name=wanted.name,
            hostname=wanted.hostname or wanted.name or to_hex(container_id),
            image_name=wanted.image,
            image_digest=content.digest,
            memory_bytes=wanted.limits.memory_bytes,
            cpu_millis=wanted.limits.cpu_millis,
            pids=wanted.limits.pids,
            root_bytes=root_bytes,
            environment=wanted.environment,
            labels=dict(wanted.labels),
            profile=wanted.profile,
            descendants=wanted.descendants,
            depth=wanted.depth,
            storage_bytes=wanted.storage_bytes,
            overcommit=wanted.overcommit,
            ttl_s=wanted.ttl_s,
            idle_timeout_s=wanted.idle_timeout_s,
            api_users=wanted.api_users,
            delegate=wanted.delegate,
        )

    def note(self, row: ContainerRow) -> None:
        """Keep in mind what is asked often: whether its storage is limited, and when it ends by itself."""
        change = self._host.storage_limited.discard if row.storage_bytes is None else self._host.storage_limited.add
        change(to_hex(row.id))
        self.on_noted(row)

    def asker(self, viewer: int | None) -> Asker:
        """Who asks for something that takes room, and what is known of the room that is taken."""
        return Asker(viewer, self._host.output_bytes)


def check_new(host: Host, connection: Connection, new: NewContainer, asker: Asker) -> None:
    """Raise what insert would raise."""
    if not new.overcommit:
        host.state_dir.check_free(new.root_bytes)
    hierarchy.check_container(connection, new)
    quotas.check_new(connection, new, asker)


def insert(host: Host, connection: Connection, new: NewContainer, asker: Asker) -> ContainerRow:
    """Record the intention, if there is room for it."""
    check_new(host, connection, new, asker)
    return hierarchy.insert_container(connection, new)


def check(row: ContainerRow, step: Step, verb: str) -> None:
    """Raise FailedPrecondition where the step is not possible in the container's state."""
    if row.state not in sources(step):
        raise refused(to_hex(row.id), State(row.state), verb)
