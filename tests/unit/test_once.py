"""Requests that are carried out once: joined while they run, refused with other content."""

import asyncio

import pytest

from sysproc.errors import InvalidArgument
from sysproc.once import Once, TaskOwner
from sysproc.storage.requests import RequestKey


def key(digest: bytes = b"a") -> RequestKey:
    return RequestKey(caller="host", method="Create", request_id="1", digest=digest)


def test_a_repeat_joins_the_request_under_way() -> None:
    async def scene() -> tuple[list[int], list[str]]:
        once, begun, gate = Once(TaskOwner()), [], asyncio.Event()

        async def work() -> str:
            begun.append(1)
            await gate.wait()
            return "answer"

        calls = [asyncio.ensure_future(once.run(key(), work)) for _ in range(3)]
        await asyncio.sleep(0)
        gate.set()
        return begun, await asyncio.gather(*calls)

    assert asyncio.run(scene()) == ([1], ["answer"] * 3)


def test_the_same_id_with_other_content_is_refused() -> None:
    async def scene() -> None:
        owner = TaskOwner()
        once, gate = Once(owner), asyncio.Event()
        first = asyncio.ensure_future(once.run(key(b"a"), gate.wait))
        await asyncio.sleep(0)
        with pytest.raises(InvalidArgument, match="request_id 1"):
            await once.run(key(b"b"), gate.wait)
        gate.set()
        await first

    asyncio.run(scene())


def test_work_goes_on_when_its_caller_goes_away() -> None:
    async def scene() -> list[str]:
        owner, gate, done = TaskOwner(), asyncio.Event(), []

        async def work() -> None:
            await gate.wait()
            done.append("done")

        call = asyncio.ensure_future(Once(owner).run(None, work))
        await asyncio.sleep(0)
        call.cancel()
        gate.set()
        await owner.wait()
        return done

    assert asyncio.run(scene()) == ["done"]
