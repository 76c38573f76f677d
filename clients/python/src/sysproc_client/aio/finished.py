"""Waiting for gRPC so that a cancellation of who waits is never lost, and never taken for the end of the call.

grpc.aio answers a cancellation with what the call has just ended with, and then `asyncio.wait_for` or a `timeout`
around it does not fire; and it raises CancelledError in who was not cancelled, because another one has ended the call
(seen with grpcio 1.74 to 1.85). So each is awaited in a task of its own. What is not to be cut off at all is in
`sysproc_client.aio.to_end`.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable
from typing import TypeVar

from sysproc_client._core.errors import client_closed

T = TypeVar("T")


async def finished(work: Awaitable[T]) -> "asyncio.Future[T]":
    """Wait until that has ended, in whatever way. CancelledError: the caller is cancelled, and nothing else."""
    running = asyncio.ensure_future(work)
    try:
        await asyncio.wait({running})
    except asyncio.CancelledError:
        running.cancel()
        await asyncio.wait({running})
        raise
    finally:
        if running.done() and not running.cancelled():
            running.exception()  # looked at: it may be that nobody else does
    return running


async def answer_of(call: Awaitable[T]) -> T:
    """What it answers. Raises grpc.RpcError, Unavailable (the client was closed)."""
    return result_of(await finished(call))


def result_of(ended: "asyncio.Future[T]") -> T:
    """The same, of one that has ended: nobody else cancels a call that somebody waits for."""
    if ended.cancelled():
        raise client_closed()
    return ended.result()


async def answers_of(call: AsyncIterable[T]) -> AsyncIterator[T]:
    """All that a call answers. Raises grpc.RpcError, Unavailable (the client was closed)."""
    answers = aiter(call)
    while True:
        try:
            answer = await answer_of(anext(answers))
        except StopAsyncIteration:
            return
        yield answer
