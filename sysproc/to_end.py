"""Blocking calls from asyncio code that are never abandoned half-way.

Only the bridge belongs here. What blocks, and for how long, is the business of the caller.
"""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def to_end(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking call in a thread. A cancellation waits until it is over: nothing it made is lost."""
    running = asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError as again:
            cancelled = again
    if cancelled is not None:
        raise cancelled from running.exception()
    return running.result()
