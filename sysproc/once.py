"""Requests that are carried out once, however often they are sent: `request_id`.

    first call ---------------> runs as a task of the daemon -> its answer is stored with the change it made
    repeat, while it runs ----> waits for the same task
    repeat, within 24 hours --> the stored answer
    same request_id, other content --> InvalidArgument; a failure is not stored

Also without a request_id, what changes the kernel runs as a task of its own: a caller that goes away does not
leave it half done. The storage of answers is in `sysproc.storage.requests`.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from sysproc.storage.requests import RequestKey, reused

T = TypeVar("T")


class Once:
    """The requests under way, and the tasks that carry them out."""

    def __init__(self, tasks: "TaskOwner") -> None:
        self._tasks = tasks
        self._under_way: dict[tuple[str, str, str], tuple[bytes, asyncio.Future[Any]]] = {}

    async def run(self, key: RequestKey | None, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run the work to its end, or join the same request under way; the caller may be cancelled meanwhile."""
        if key is None:
            return await asyncio.shield(self._tasks.start(work()))
        name = (key.caller, key.method, key.request_id)
        digest, running = self._under_way.get(name, (key.digest, None))
        if digest != key.digest:
            raise reused(key)
        if running is None:
            running = self._tasks.start(work())
            self._under_way[name] = (key.digest, running)
            running.add_done_callback(lambda _: self._under_way.pop(name, None))
        return await asyncio.shield(running)


class TaskOwner:
    """Starts tasks that outlive the calls which asked for them, and waits for all of them at the end."""

    def __init__(self) -> None:
        self._running: set[asyncio.Future[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> "asyncio.Future[T]":
        """Begin; the future has the result or the error, also if nobody asks for it."""
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Future[Any]") -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited has it; without a waiter it is logged where it happened

    async def wait(self) -> None:
        """Wait until nothing is under way any more."""
        while self._running:
            await asyncio.wait(set(self._running))
