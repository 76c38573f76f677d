"""The way back of an upload: progress, then what was made; and who does not wait for it."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from sysproc.server.upload import with_progress


async def test_progress_comes_before_the_result() -> None:
    go = asyncio.Event()

    async def work(told: Any) -> str:
        told("half")
        await go.wait()
        return "made"

    async with aclosing(with_progress(work)) as updates:
        assert await anext(updates) == "half"
        go.set()
        assert [one async for one in updates] == ["made"]


async def test_a_failure_is_the_listeners() -> None:
    async def work(_: Any) -> str:
        raise KeyError("why")

    with pytest.raises(KeyError):
        await anext(with_progress(work))


@pytest.mark.parametrize("ends_by_itself", [True, False])
async def test_what_nobody_listens_to_any_more_has_ended_and_is_no_error_of_the_service(ends_by_itself: bool) -> None:
    loud = list[Any]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: loud.append(context))
    go, over = asyncio.Event(), list[str]()

    async def work(told: Any) -> str:
        told("half")
        try:
            await go.wait()
            raise KeyError("why")
        finally:
            over.append("over")

    async with aclosing(with_progress(work)) as updates:
        assert await anext(updates) == "half"
        if ends_by_itself:
            go.set()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    assert over == ["over"] and not loud
