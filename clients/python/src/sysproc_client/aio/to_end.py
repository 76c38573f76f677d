"""What goes on to its end though the one who waits for it is cancelled: nothing it has made is lost.

That a cancelled exec ends its process and a cancelled create its container is decided where they are made.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def to_end(work: Coroutine[Any, Any, T]) -> T:
    """Do it in a task of its own, and wait for that, whoever is cancelled; then the cancellation goes on."""
    running, cancelled = asyncio.ensure_future(work), None
    while not running.done():
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError as again:
            cancelled = again
    if cancelled is not None:
        raise cancelled from (None if running.cancelled() else running.exception())
    return running.result()


async def in_thread(call: Callable[..., T], *args: object) -> T:
    """A blocking call, in a thread, to its end."""
    return await to_end(asyncio.to_thread(call, *args))
