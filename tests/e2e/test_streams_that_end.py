"""Streams whose end meets something else: input that is still sent, a reader that is cancelled in that moment.

What either shell does when nothing gets into the way is in `tests.e2e.test_both_shells`.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from sysproc_client.aio import AsyncClient
from tests.e2e.daemon import RunningDaemon
from tests.e2e.shells import SHELLS, client_of, grpc_begun

# Each of these failed one time in ten.
TIMES = 60
MORE_THAN_A_WINDOW = bytes(8 << 20)
# From before anything was sent to after the process has begun.
MOMENTS_S = (0, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.008, 0.02)


@pytest.fixture(scope="module", autouse=True)
def grpc_is_begun() -> Iterator[None]:
    """No test sees it begin, or end."""
    with grpc_begun():
        yield


@pytest.fixture(params=SHELLS)
async def c(request: pytest.FixtureRequest, daemon: RunningDaemon) -> AsyncIterator[Any]:
    async with client_of(request.param, daemon.endpoint) as connected:
        yield connected


async def test_a_process_may_end_before_it_has_read_its_input(c: Any) -> None:
    async with c.create() as box:
        for _ in range(TIMES):
            result = await box.run(["head", "-c1"], input=MORE_THAN_A_WINDOW)
            assert (result.stdout, result.exit_code) == (b"\0", 0)


async def test_a_reader_that_is_cancelled_at_any_moment_loses_nothing(daemon: RunningDaemon) -> None:
    moment = random.Random(11)
    async with AsyncClient(daemon.endpoint) as later, later.create() as box:
        for _ in range(TIMES):
            async with box.exec(["sh", "-c", "echo one; read go; echo two"]) as process:
                output: list[bytes] = []
                for _ in range(3):
                    with pytest.raises(asyncio.TimeoutError):
                        await asyncio.wait_for(read(process, output), moment.choice(MOMENTS_S))
                await process.stdin.write(b"go\n")
                await read(process, output)
                assert b"".join(output) == b"one\ntwo\n"
    await no_call_is_left()


async def read(process: Any, output: list[bytes]) -> None:
    """All of it, or until cancelled."""
    async with contextlib.aclosing(aiter(process.stdout)) as lines:
        async for data in lines:
            output.append(data)  # noqa: PERF401 - what came before the cancellation counts


async def no_call_is_left() -> None:
    """gRPC has a task for each call, until that has ended; a test that waits in vain is ended by its timeout."""
    if left := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(left)
