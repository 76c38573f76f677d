"""What a blocking call has made is the caller's, or is taken back: also when the caller was cancelled meanwhile."""

import asyncio
import threading

import pytest

from sysproc.to_end import handed_over


async def test_what_was_made_is_the_callers() -> None:
    taken: list[int] = []
    assert await handed_over(lambda: 7, taken.append) == 7
    assert taken == []


async def test_of_a_caller_that_was_cancelled_it_is_taken_back() -> None:
    goes_on, taken = threading.Event(), list[int]()

    def make() -> int:
        goes_on.wait()
        return 7

    caller = asyncio.ensure_future(handed_over(make, taken.append))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.sleep(0)
    assert not caller.done() and taken == []
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert taken == [7]


async def test_of_what_failed_nothing_is_taken_back() -> None:
    goes_on, taken = threading.Event(), list[object]()

    def fail() -> int:
        goes_on.wait()
        raise OSError(5, "broken")

    caller = asyncio.ensure_future(handed_over(fail, taken.append))
    await asyncio.sleep(0)
    caller.cancel()
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert taken == []
