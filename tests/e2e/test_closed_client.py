"""A client that is closed while somebody still uses it: whoever waits is told so, in either shell, and nobody hangs."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from sysproc_client import Unavailable
from tests.e2e.daemon import RunningDaemon
from tests.e2e.shells import SHELLS, client_of, grpc_begun
from tests.waiting import wait_until


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


class Source:
    """Bytes that do not end before somebody says so; `began`: some were read."""

    def __init__(self) -> None:
        self.began, self.over = threading.Event(), threading.Event()
        self._first = True

    def read(self, size: int = -1) -> bytes:
        if not self._first:
            self.began.set()
            self.over.wait()
            return b""
        self._first = False
        return bytes(max(size, 1))


class Target:
    """Takes bytes once somebody says so; `began`: some have come."""

    def __init__(self) -> None:
        self.began, self.over = threading.Event(), threading.Event()

    def write(self, data: bytes) -> int:
        self.began.set()
        self.over.wait()
        return len(data)


async def closed_under(c: Any, waiting: "asyncio.Future[Any]") -> None:
    """Close it; what the one who waits is told."""
    await c.close()
    await asyncio.wait({waiting})
    assert not waiting.cancelled(), "nobody has cancelled it"
    failure = waiting.exception()
    assert isinstance(failure, Unavailable)
    assert failure.reason == "CLIENT_CLOSED" and failure.resolution


async def until_it_runs(process: Any) -> None:
    """Until its stream has been answered."""
    await asyncio.to_thread(wait_until, lambda: not process.away, "the process runs")


READERS: dict[str, Callable[[Any], Any]] = {
    "wait": lambda process: process.wait(),
    "stdout": lambda process: all_of(process.stdout),
    "write": lambda process: process.stdin.write(b"more"),
}


async def awaited(call: Any) -> Any:
    return await call


async def all_of(chunks: Any) -> None:
    async for _ in chunks:
        pass


@pytest.mark.parametrize("how", READERS)
async def test_who_waits_for_a_process_is_told(c: Any, how: str) -> None:
    box = await c.create()
    process = box.exec(["sleep", "100"])
    await process.stdin.write(bytes(8 << 20))
    waiting = asyncio.ensure_future(awaited(READERS[how](process)))
    await until_it_runs(process)
    await closed_under(c, waiting)


@pytest.fixture
def forgets(shell: str, daemon: RunningDaemon) -> Iterator[None]:
    """A service keeps what a client that was closed may come back for; one that is started again has nothing."""
    yield
    if shell == "sync":  # the other one has told it
        daemon.restart()


SOURCES: dict[str, Callable[[Any, Source], Any]] = {
    "image": lambda c, source: c.images.import_("never", source),
    "packed": lambda c, source: c.volumes.create_from("never", source),
}


@pytest.mark.parametrize("what", SOURCES)
async def test_who_sends_is_told(c: Any, what: str) -> None:
    await told_while_sending(c, SOURCES[what])


@pytest.mark.usefixtures("forgets")
async def test_who_imports_a_volume_is_told(c: Any) -> None:
    await told_while_sending(c, lambda c, source: c.volumes.import_from("never", source))


async def told_while_sending(c: Any, send: Callable[[Any, Source], Any]) -> None:
    source = Source()
    sending = asyncio.ensure_future(awaited(send(c, source)))
    try:
        await asyncio.to_thread(source.began.wait)
        await closed_under(c, sending)
    finally:
        source.over.set()


@pytest.mark.usefixtures("forgets")
async def test_who_exports_is_told(c: Any) -> None:
    volume, target = await c.volumes.create("data", size="64M"), Target()
    exporting = asyncio.ensure_future(awaited(volume.export_to(target)))
    await asyncio.to_thread(target.began.wait)
    closing = asyncio.ensure_future(closed_under(c, exporting))
    await asyncio.sleep(0)
    target.over.set()
    await closing


async def test_a_sync_client_that_is_closed_says_so_from_then_on(daemon: RunningDaemon) -> None:
    async with client_of("sync", daemon.endpoint) as other:
        box = await other.create()
        data = await other.volumes.create("data", size="64M")
        await other.close()
        for call in (
            other.list,
            box.destroy,
            box.exec(["true"]).wait,
            lambda: box.run(["true"], input=b"x"),
            lambda: all_of(data.check()),
            lambda: other.images.import_("never", Source()),
            lambda: other.volumes.create_from("never", Source()),
        ):
            with pytest.raises(Unavailable) as caught:
                await call()
            assert caught.value.reason == "CLIENT_CLOSED"
