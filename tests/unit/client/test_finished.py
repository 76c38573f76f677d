"""Waiting for a call that takes a cancellation for itself, as grpc.aio does, or ends of itself as if cancelled."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from sysproc_client.aio.finished import answers_of, finished


async def swallows() -> str:
    """Answers a cancellation with what it has."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return "answer"
    return ""


async def test_a_cancellation_is_raised_though_the_call_answers_it() -> None:
    waiting = asyncio.ensure_future(finished(swallows()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_call_that_another_one_has_ended_cancels_nobody() -> None:
    call = asyncio.ensure_future(asyncio.Event().wait())
    waiting = asyncio.ensure_future(finished(call))
    await asyncio.sleep(0)
    call.cancel()
    assert (await waiting).cancelled()


async def test_answers_come_until_the_call_ends_or_the_reader_is_cancelled() -> None:
    async def call() -> AsyncIterator[str]:
        yield "first"
        yield await swallows()

    seen, began = [], asyncio.Event()

    async def read() -> None:
        async with aclosing(answers_of(call())) as answers:  # type: ignore[type-var]  # it is a generator
            async for answer in answers:
                seen.append(answer)
                began.set()

    reading = asyncio.ensure_future(read())
    await began.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert seen == ["first"]
