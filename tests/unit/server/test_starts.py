"""How many starts of one container go on at once, and that nobody else waits for them."""

import asyncio

import pytest

from sysproc.server.allowances import Allowance, Bounds
from sysproc.server.starts import PRICE, Starts
from sysproc.server.throttle import Rate

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


async def test_a_start_begins_when_it_is_paid_and_only_others_of_its_container_wait_for_that() -> None:
    paid: dict[int, asyncio.Event] = {7: asyncio.Event(), 8: asyncio.Event()}
    asked: list[tuple[int, int]] = []

    async def pay(container_id: int, calls: int) -> None:
        asked.append((container_id, calls))
        await paid[container_id].wait()

    starts = Starts(1, pay)
    first, second, other, host = (Verb(starts, one) for one in (7, 7, 8, None))
    paid[8].set()
    assert await settled([first, second, other, host]) == [False, False, True, True]
    assert asked == [(7, PRICE), (8, PRICE)]
    paid[7].set()
    assert await settled([first, second]) == [True, False]
    for verb in (first, second, other, host):
        await verb.end()


async def test_what_costs_several_calls_is_paid_one_by_one_in_turn_with_what_costs_one() -> None:
    allowance = Allowance(Bounds(connections=1, calls=Rate(per_second=1000, burst=2), accepts=Rate(1, 1), held_bytes=1))
    await asyncio.wait_for(allowance.pay(4), 10)
    second, third = asyncio.create_task(allowance.pay(4)), asyncio.create_task(allowance.pay(1))
    await asyncio.wait({second, third}, return_when=asyncio.FIRST_COMPLETED)
    assert (second.done(), third.done()) == (False, True)
    await second


async def test_who_goes_away_before_it_is_paid_pays_nothing() -> None:
    allowance = Allowance(Bounds(connections=1, calls=Rate(per_second=100, burst=4), accepts=Rate(1, 1), held_bytes=1))
    await allowance.pay(4)
    gone = asyncio.create_task(allowance.pay(4))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait_for(allowance.pay(4), 10)
