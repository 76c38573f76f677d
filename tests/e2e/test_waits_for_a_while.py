"""`wait(timeout=…)` of a process through either shell of the client: the process goes on, and nothing is lost."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from sysproc_client import InvalidArgument, TimedOut
from tests.e2e.daemon import RunningDaemon
from tests.e2e.shells import SHELLS, client_of, grpc_begun


@pytest.fixture(scope="module", autouse=True)
def grpc_is_begun() -> Iterator[None]:
    """No test sees it begin, or end."""
    with grpc_begun():
        yield


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def c(shell: str, daemon: RunningDaemon) -> AsyncIterator[Any]:
    async with client_of(shell, daemon.endpoint) as connected:
        yield connected


async def test_who_has_waited_long_enough_can_wait_again(c: Any) -> None:
    async with c.create() as box, box.exec(["sh", "-c", "read go; exit 3"]) as process:
        for timeout in (0, 0.05, 0.3):
            with pytest.raises(TimedOut, match=f"{timeout} s") as caught:
                await process.wait(timeout)
            assert (caught.value.reason, bool(caught.value.resolution)) == ("WAIT_TIMEOUT", True)
        assert process.ended is None
        await process.stdin.write(b"on\n")
        assert (await process.wait(60)).exit_code == 3
        assert (await process.wait(0)).exit_code == 3


async def test_looking_again_and_again_sees_the_end(c: Any) -> None:
    """However short each look is: what comes meanwhile is not lost with it."""
    async with c.create() as box, box.exec(["sh", "-c", "echo out; exit 3"]) as process:
        while True:
            try:
                assert (await process.wait(timeout=0)).exit_code == 3
                return
            except TimedOut:
                await asyncio.sleep(0.001)


async def test_after_a_wait_in_vain_output_goes_on_where_it_was(c: Any) -> None:
    async with c.create() as box, box.exec(["sh", "-c", "echo one; read go; seq 100000"]) as process:
        assert await anext(aiter(process.stdout)) == b"one\n"
        with pytest.raises(TimedOut):
            await process.wait(0.2)
        await process.stdin.write(b"go\n")
        output = b"".join([data async for data in process.stdout])
        assert output == b"".join(b"%d\n" % number for number in range(1, 100001))


async def test_much_output_keeps_nobody_waiting_longer(c: Any) -> None:
    async with c.create() as box, box.exec(["yes"]) as process:
        with pytest.raises(TimedOut):
            await process.wait(0.5)


async def test_a_signal_after_a_wait_in_vain_is_delivered_though_nobody_reads(c: Any) -> None:
    script = "trap 'touch /told' TERM; while :; do sleep 0.05; done"
    async with c.create() as box, box.exec(["sh", "-c", script]) as process:
        with pytest.raises(TimedOut):
            await process.wait(1)
        await process.signal(signal.SIGTERM)

        async def told() -> bool:
            return bool((await box.run(["ls", "/told"])).exit_code == 0)

        await until(told, True)


async def test_one_waits_for_a_while_as_another_reads_on(c: Any) -> None:
    async with c.create() as box, box.exec(["sh", "-c", "echo one; read go; echo two"]) as process:
        output = aiter(process.stdout)
        assert await anext(output) == b"one\n"
        reading = asyncio.ensure_future(anext(output))
        with pytest.raises(TimedOut):
            await process.wait(0.2)
        await process.stdin.write(b"go\n")
        assert await reading == b"two\n"


async def test_a_wait_ends_in_time_though_the_daemon_is_away(c: Any, daemon: RunningDaemon) -> None:
    async with c.create() as box, box.exec(["sleep", "1000"]) as process:
        with pytest.raises(TimedOut):
            await process.wait(0.2)
        await asyncio.to_thread(daemon.kill9)
        with pytest.raises(TimedOut) as caught:
            await process.wait(0.5)
        assert caught.value.reason == "WAIT_TIMEOUT"
        await asyncio.to_thread(daemon.start)
        with pytest.raises(TimedOut):
            await process.wait(0.2)


async def test_a_time_that_is_none_is_refused(c: Any) -> None:
    async with c.create() as box, box.exec(["true"]) as process:
        with pytest.raises(InvalidArgument):
            await process.wait(-1)


async def test_a_process_that_is_waited_for_in_vain_and_forgotten_leaves_no_thread(
    shell: str, daemon: RunningDaemon
) -> None:
    """Its client is closed; gRPC's own threads end with the last channel."""
    before = {*threading.enumerate()}
    async with client_of(shell, daemon.endpoint) as c:
        process = (await c.create(name="left")).exec(["sleep", "1000"])
        with pytest.raises(TimedOut):
            await process.wait(0.2)
    await until(lambda: threads_besides(before), set())


async def threads_besides(before: set[threading.Thread]) -> set[threading.Thread]:
    """Less those of asyncio.to_thread, which stay."""
    return {one for one in threading.enumerate() if one not in before and not one.name.startswith("asyncio_")}


async def until(ask: Callable[[], Awaitable[object]], wanted: object) -> None:
    """Ask until that is the answer; a test that waits in vain is ended by its timeout."""
    while True:
        if await ask() == wanted:
            return
        await asyncio.sleep(0.02)
