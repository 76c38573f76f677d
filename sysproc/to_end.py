"""Blocking calls from asyncio code that are never abandoned half-way.

Only the bridge belongs here. What blocks, and for how long, is the business of the caller.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

from sysproc.undo import Undo

P = ParamSpec("P")
T = TypeVar("T")


async def to_end(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking call in a thread. A cancellation waits until it is over: nothing it made is lost."""
    work = partial(copy_context().run, call, *args, **kwargs)
    return await outlasted(asyncio.get_running_loop().run_in_executor(None, work))


async def handed_over(call: Callable[[], T], take_back: Callable[[T], object]) -> T:
    """The same, of what is the caller's from then on. A caller that was cancelled meanwhile has it taken back."""
    made = asyncio.get_running_loop().run_in_executor(None, copy_context().run, call)
    try:
        return await outlasted(made)
    except asyncio.CancelledError:
        if made.exception() is None:
            await to_end(take_back, made.result())
        raise


async def outlasted(work: Awaitable[T]) -> T:
    """The result of what goes on by itself. A cancellation waits until it is over: what it needs may go then."""
    running = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError as again:
            cancelled = again
    if cancelled is not None:
        raise cancelled from running.exception()
    return running.result()


@asynccontextmanager
async def undo_in_thread() -> AsyncIterator[Undo]:
    """An `Undo` for asyncio code whose steps block: they run in a thread, to their end.

    On success the steps are dropped or handed over by the caller's `pop_all()`, else they run too.
    """
    undo = Undo()
    try:
        yield undo
    except BaseException as failure:
        await to_end(undo.__exit__, type(failure), failure, failure.__traceback__)
        raise
    await to_end(undo.close)
