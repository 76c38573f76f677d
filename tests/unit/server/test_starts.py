"""How many starts of one container go on at once, and that nobody else waits for them."""

import asyncio

import pytest

from sysproc.server.starts import Starts

MOST = 2


class Verb:
    """Something that starts, until it is let go on."""

    def __init__(self, starts: Starts, container_id: int | None) -> None:
        self.begun, self._go = asyncio.Event(), asyncio.Event()
        self.task = asyncio.create_task(self._run(starts, container_id))

    async def _run(self, starts: Starts, container_id: int | None) -> None:
        async with starts.turn(container_id):
            self.begun.set()
            await self._go.wait()

    async def end(self) -> None:
        """Let it come to its end."""
        self._go.set()
        await self.task


async def settled(verbs: list[Verb]) -> list[bool]:
    """Which have begun, once nothing moves any more."""
    for _ in range(10):
        await asyncio.sleep(0)
    return [verb.begun.is_set() for verb in verbs]


async def test_more_of_one_container_wait_in_their_order() -> None:
    starts = Starts(MOST)
    verbs = [Verb(starts, 7) for _ in range(4)]
    assert await settled(verbs) == [True, True, False, False]
    await verbs[1].end()
    assert await settled(verbs) == [True, True, True, False]
    for verb in verbs:
        await verb.end()


@pytest.mark.parametrize("other", [8, None], ids=["another container", "the host"])
async def test_nobody_else_waits_for_them(other: int | None) -> None:
    starts = Starts(MOST)
    flood = [Verb(starts, 7) for _ in range(10)]
    verbs = [Verb(starts, other) for _ in range(MOST)]
    assert await settled(verbs) == [True] * MOST
    for verb in flood + verbs:
        await verb.end()


async def test_the_host_has_no_bound() -> None:
    starts = Starts(MOST)
    verbs = [Verb(starts, None) for _ in range(100)]
    assert all(await settled(verbs))
    for verb in verbs:
        await verb.end()


async def test_one_that_is_cancelled_leaves_its_turn_to_the_next() -> None:
    starts = Starts(1)
    first, waiting, last = (Verb(starts, 7) for _ in range(3))
    await settled([first, waiting, last])
    waiting.task.cancel()
    first.task.cancel()
    assert await settled([last]) == [True]
    await last.end()
    await asyncio.wait({first.task, waiting.task})
