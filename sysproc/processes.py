"""The verbs of processes: start, attach, wait, list.

    start    claim the id -> spec, files, locked state page -> supervisor (launcher) -> held
    attach   held already, or from its files and, if it lives, its supervisor's fds

A process belongs to its supervisor, which needs neither this daemon nor the launcher. The way in for
`sysproc.server`; the parts are `sysproc.exec_files` (disk), `sysproc.exec_held` (one process), `sysproc.exec_handle`
(one client). Nothing of gRPC belongs here, nor who may call what.
"""

import asyncio
import os
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager
from pathlib import Path
from weakref import WeakValueDictionary

from sysproc.exec_events import ExecInfo, Exited, Stream
from sysproc.exec_files import Asked, ExecFiles
from sysproc.exec_handle import ExecHandle, exited
from sysproc.exec_held import Found, HeldExec, Line, found
from sysproc.exec_kept import forget, forget_held, keeps_anything, kept_bytes, prune, worth_a_look
from sysproc.exec_list import list_execs
from sysproc.exec_output import declared_bytes
from sysproc.exec_prepare import Prepared, WantedExec, asked_of, claim_and_prepare, end_supervisor
from sysproc.failpoints import failpoint
from sysproc.host import Host
from sysproc.ids import to_hex
from sysproc.once import TaskOwner
from sysproc.process_list import ProcessInfo, processes
from sysproc.running import RunningContainer
from sysproc.storage.quotas import Asker, check_room
from sysproc.storage.vsf.clone import disk_full_as_domain_error
from sysproc.to_end import to_end, undo_in_thread

__all__ = ["Processes", "WantedExec"]

Key = tuple[int, str]


class Processes:
    """All exec'd processes of this daemon's containers; one instance, used from one event loop."""

    def __init__(self, host: Host, tasks: TaskOwner) -> None:
        self._host, self._tasks = host, tasks
        self._held: dict[Key, HeldExec] = {}
        self._held_in: Counter[int] = Counter()
        self._locks: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()

    def close(self) -> None:
        """Let go of all processes; they live on."""
        for held in list(self._held.values()):
            held.let_go()

    # -- start

    async def start(self, container: RunningContainer, wanted: WantedExec, asked_by: int | None = None) -> ExecHandle:
        """Start a process; asked_by: the container of the caller, None on the host.

        Raises AlreadyExists (its id), LimitExceeded (storage), ResourceExhausted (the disk), Unavailable.
        """
        exec_id = wanted.exec_id or str(uuid.uuid4())
        key = (container.id, exec_id)
        started = self._tasks.start(self._start(container, key, wanted, asked_by))
        try:
            return await asyncio.shield(started)
        except asyncio.CancelledError:
            started.add_done_callback(close_unwanted)
            raise

    async def _start(
        self, container: RunningContainer, key: Key, wanted: WantedExec, asked_by: int | None
    ) -> ExecHandle:
        files = ExecFiles(container.exec_dir / key[1])
        asked = asked_of(wanted)
        async with self._lock(key), undo_in_thread() as undo:
            prepared = await self._prepare(container, files, asked, wanted, asked_by)
            undo.add("the directory of the process", files.remove)
            undo.add("its files", prepared.close)
            failpoint("processes.start.after_files")
            undo.add("what was started", end_supervisor, files, prepared.page)
            undo.add("its lock", prepared.unlock)
            line = await self._spawn(key, prepared, container)
            undo.add("its pidfd", os.close, line.supervisor)
            failpoint("processes.start.after_spawn")
            undo.pop_all()
            held = self._hold(key, HeldExec(Found(files, asked, prepared.opened, prepared.page, line)))
            return ExecHandle(held, None, None)

    async def _prepare(
        self, container: RunningContainer, files: ExecFiles, asked: Asked, wanted: WantedExec, viewer: int | None
    ) -> Prepared:
        """The id and the files, if the storage that containers from here up may have has room for the output."""
        async with AsyncExitStack() as stack:
            if not self._host.storage_limited.isdisjoint(container.path):
                await stack.enter_async_context(self._host.storage_lock)
                asker = Asker(viewer, self._host.output_bytes)
                more = declared_bytes(asked)
                await self._host.database.read(lambda c: check_room(c, container.id, more, asker))
            with disk_full_as_domain_error(files.path):
                return await to_end(claim_and_prepare, files, asked, container, wanted)
        raise AssertionError("an error was swallowed")

    async def _spawn(self, key: Key, prepared: Prepared, container: RunningContainer) -> Line:
        name = f"sysproc: exec {to_hex(key[0])} {key[1]}"
        supervisor = await self._host.launcher.spawn_exec([name, "exec"], prepared.fds(container.init_pidfd))
        prepared.unlock()
        return Line(supervisor.pidfd, prepared.wake, prepared.news)

    def _hold(self, key: Key, held: HeldExec) -> HeldExec:
        self._held[key] = held
        self._held_in[key[0]] += 1

        def unused() -> None:
            if self._held.get(key) is held:
                del self._held[key]
            self._held_in.subtract([key[0]])
            if not self._held_in[key[0]]:
                del self._held_in[key[0]]
            self._tasks.start(self._tidy(key, held))

        held.on_unused = unused
        return held

    async def _tidy(self, key: Key, held: HeldExec) -> None:
        """Nobody looks at it any more: if it has ended, only what has to be kept is kept. Closes it."""
        async with self._lock(key):
            try:
                if key not in self._held and held.end() is not None and keeps_anything(held.opened):
                    confirmed = {stream: output.confirmed for stream, output in held.outputs.items()}
                    await to_end(forget_held, held.opened, held.page, confirmed)
                kept = kept_bytes(held.opened)
            finally:
                held.close()
        directory, running = held.files.path.parent, self._held_in[key[0]]
        if not worth_a_look(directory, running, kept):
            return
        for files in await to_end(prune, directory):
            await self._forget((key[0], files.exec_id), files, None)

    async def _forget(self, key: Key, files: ExecFiles, before: Mapping[Stream, int] | None) -> None:
        """Forget output, unless somebody is attached: then it is looked at again when they have gone."""
        async with self._lock(key):
            if key not in self._held:
                await to_end(forget, files, before)

    def _lock(self, key: Key) -> asyncio.Lock:
        return self._locks.setdefault(key, asyncio.Lock())

    # -- attach, wait

    async def attach(
        self, container_id: int, exec_id: str, stdout_offset: int | None, stderr_offset: int | None
    ) -> ExecHandle:
        """See and feed a process that was started before. Raises NotFound, OutOfRange."""
        with await self._use(container_id, exec_id) as held:
            return ExecHandle(held, stdout_offset, stderr_offset)

    async def wait(self, container_id: int, exec_id: str) -> Exited:
        """Wait until it has ended. Raises NotFound."""
        with await self._use(container_id, exec_id) as held:
            await held.until(lambda: False)
            end = exited(held.page, held.asked)
        if end is None:
            raise LookupError(f"{exec_id} is waited for no more, and has not ended")
        return end

    async def _use(self, container_id: int, exec_id: str) -> AbstractContextManager[HeldExec]:
        key = (container_id, exec_id)
        async with self._lock(key):
            held = self._held.get(key)
            if held is None:
                files = ExecFiles(self._exec_dir(container_id) / exec_id)
                held = self._hold(key, HeldExec(await to_end(found, files)))
            held.acquire()
        return released(held)

    def _exec_dir(self, container_id: int) -> Path:
        return self._host.state_dir.container(to_hex(container_id)).execs

    # -- lists

    async def list(self, container_id: int) -> Sequence[ExecInfo]:
        """All that run and the newest that have ended, oldest first."""
        return await to_end(list_execs, self._exec_dir(container_id))

    async def processes(self, container: RunningContainer) -> Sequence[ProcessInfo]:
        """Every process of the container itself, by pid."""
        return await to_end(lambda: processes(container.cgroup.pids(), container.uid_base))


def close_unwanted(started: "asyncio.Future[ExecHandle]") -> None:
    """Whoever asked has gone meanwhile; the process lives, and can be attached to."""
    if not started.cancelled() and started.exception() is None:
        started.result().close()


@contextmanager
def released(held: HeldExec) -> Iterator[HeldExec]:
    """Release at the end what was acquired before."""
    try:
        yield held
    finally:
        held.release()
