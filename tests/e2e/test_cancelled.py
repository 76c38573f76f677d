"""Who is cancelled leaves nothing behind, whatever the service was doing for it in that moment."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from sysproc_client.aio import AsyncClient
from tests.e2e.daemon import RunningDaemon
from tests.e2e.shells import grpc_begun


@pytest.fixture(scope="module", autouse=True)
def grpc_is_begun() -> Iterator[None]:
    """No test sees it begin, or end."""
    with grpc_begun():
        yield


@pytest.fixture
async def c(daemon: RunningDaemon) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(daemon.endpoint) as connected:
        yield connected


async def test_a_command_is_over_though_it_is_cancelled_while_its_timeout_kills_it(c: AsyncClient) -> None:
    async with c.create() as box:
        process = box.exec(["sleep", "100"])
        collecting = asyncio.ensure_future(process.collect(0.2))
        while not any(ending.begun for ending in process._endings):  # noqa: ASYNC110 - the very next moment it has to be
            await asyncio.sleep(0)
        collecting.cancel()
        await asyncio.wait({collecting})
        assert collecting.cancelled()
        assert process.ended is not None and process.ended.signal == 9
