"""Who is cancelled leaves nothing behind, whatever the service was doing for it in that moment."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from sysproc_client.aio import AsyncClient
from sysproc_client.aio.volume_mounts import AsyncMount
from sysproc_client.aio.volumes import AsyncVolume
from tests.e2e.daemon import RunningDaemon
from tests.e2e.shells import grpc_begun

# From before anything was sent to after it is done.
MOMENTS_S = (0, 0.001, 0.002, 0.004, 0.006, 0.009, 0.013, 0.018, 0.025, 0.035, 0.05)


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


@pytest.fixture
async def data(c: AsyncClient) -> AsyncIterator[AsyncVolume]:
    async with c.create(name="box") as box, c.volumes.create("data", size="16M", owner=box) as volume:
        yield volume


MADE: dict[str, Callable[[AsyncVolume], Awaitable[object]]] = {
    "clone": lambda data: data.clone("copy"),
    "snapshot": lambda data: data.snapshot("copy"),
    "mount": lambda data: data.mount("box", "/srv"),
    "attach": lambda data: data.attach("box"),
}


@pytest.mark.parametrize("what", MADE)
async def test_what_is_made_for_who_is_cancelled_is_undone(c: AsyncClient, data: AsyncVolume, what: str) -> None:
    for moment_s in MOMENTS_S:
        making = asyncio.ensure_future(awaited(MADE[what](data)))
        await asyncio.wait({making}, timeout=moment_s)
        making.cancel()
        await asyncio.wait({making})
        if not making.cancelled():
            await undo(making.result(), data)  # it came about in time
        assert [volume.name for volume in await c.volumes.list()] == ["data"]
        assert not (await data.refresh()).attached_to


async def awaited(call: Awaitable[object]) -> object:
    return await call


async def undo(made: object, data: AsyncVolume) -> None:
    if isinstance(made, AsyncVolume):
        await made.delete()
    elif isinstance(made, AsyncMount):
        await made.unmount()
    else:
        await data.detach("box")
