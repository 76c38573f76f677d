"""The relay carries bytes unchanged, knows who is at the other end, and leaves nothing open."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sysproc.server.allowances import Bounds
from sysproc.server.frames import DATA, HEADERS, PREFACE_BYTES
from sysproc.server.peer import UNKNOWN, Caller, Peers
from sysproc.server.relay import Relay
from sysproc.server.throttle import Rate
from tests.unit.server.test_throttle import frame

CONTAINER = 0xC0FFEE
PLENTY = Rate(1e9, 1e9)
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


class NoCgroups:
    """Everybody is on the host, or everybody in one container."""

    def __init__(self, place: tuple[str, ...] | None = None) -> None:
        self.place = place

    def container_of_cgroup_id(self, _: int) -> tuple[str, ...] | None:
        return self.place

    def container_of_proc_cgroup(self, _: str) -> tuple[str, ...] | None:
        return self.place


@dataclass
class Behind:
    """What stands for grpcio: it notes who connects, and answers by `answer`."""

    relay: Relay
    public: Path
    seen: list[tuple[str, Caller]] = field(default_factory=list)
    open: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = "unix-abstract:" + writer.get_extra_info("peername")[1:].decode()
        self.seen.append((address, self.relay.caller(address)))
        self.open += 1
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()
            self.open -= 1


def listener(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen(16)
    return sock


@asynccontextmanager
async def relayed(
    tmp_path: Path,
    peers: Peers | None = None,
    most: int = 64,
    calls: Rate = PLENTY,
    held: int = 2**30,
    accepts: Rate = PLENTY,
) -> AsyncIterator[Behind]:
    private = tmp_path / "private"
    relay = Relay(private, peers or Peers(NoCgroups(), os.getgid()), bounds=Bounds(most, calls, accepts, held))
    behind = Behind(relay, tmp_path / "public")
    server = await asyncio.start_unix_server(behind.answer, private)
    relay.add_host(listener(behind.public))
    relay.accept()
    try:
        yield behind
    finally:
        await relay.close()
        server.close()
        await until(lambda: behind.open == 0)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the other side is a socket, not an event
            await asyncio.sleep(0.005)


def run(loop_factory: LoopFactory, scene: Coroutine[None, None, None]) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(scene)


def test_bytes_come_back_unchanged(tmp_path: Path, loop_factory: LoopFactory) -> None:
    async def scene() -> None:
        async with relayed(tmp_path) as behind:
            reader, writer = await asyncio.open_unix_connection(behind.public)
            sent = os.urandom(3_000_000)

            async def send() -> None:
                writer.write(sent)
                await writer.drain()

            sending = asyncio.create_task(send())
            assert await reader.readexactly(len(sent)) == sent
            await sending
            writer.close()

    run(loop_factory, scene())


def test_the_caller_is_known_as_long_as_the_connection_lasts(tmp_path: Path, loop_factory: LoopFactory) -> None:
    async def scene() -> None:
        async with relayed(tmp_path) as behind:
            reader, writer = await asyncio.open_unix_connection(behind.public)
            writer.write(b"x")
            await reader.readexactly(1)
            ((address, caller),) = behind.seen
            assert caller == Caller(None, os.geteuid(), os.getpid(), authority=True)
            writer.close()
            await until(lambda: behind.relay.caller(address) is UNKNOWN)

    run(loop_factory, scene())


def test_a_connection_that_did_not_come_by_the_relay_is_unknown(tmp_path: Path) -> None:
    async def scene() -> None:
        async with relayed(tmp_path) as behind:
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.bind("\0sysproc-" + "0" * 32)
                stranger.setblocking(False)
                stranger.connect(str(tmp_path / "private"))
                await until(lambda: behind.seen)
            ((_, caller),) = behind.seen
            assert caller.refused
            assert not caller.authority

    asyncio.run(scene())


@pytest.mark.parametrize("who", ["client", "server"])
def test_the_end_of_either_side_ends_both(tmp_path: Path, loop_factory: LoopFactory, who: str) -> None:
    async def scene() -> None:
        async with relayed(tmp_path) as behind:
            before = len(os.listdir("/proc/self/fd"))
            reader, writer = await asyncio.open_unix_connection(behind.public)
            await until(lambda: behind.open == 1)
            if who == "client":
                writer.close()
            else:
                behind.relay._host[0].end_connections()
                assert await reader.read() == b""
                writer.close()
            await until(lambda: behind.open == 0)
            await until(lambda: len(os.listdir("/proc/self/fd")) <= before)

    run(loop_factory, scene())


def test_a_client_that_does_not_read_stops_the_server_from_sending(tmp_path: Path, loop_factory: LoopFactory) -> None:
    async def scene() -> None:
        async with relayed(tmp_path) as behind:
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            client.connect(str(behind.public))
            sent = 0
            try:
                while True:  # the echo comes back and is not read: everything on the way fills up
                    sent += client.send(bytes(65536))
                    await asyncio.sleep(0)
                    if sent > 100_000_000:
                        pytest.fail("the relay takes whatever is sent to it")
            except BlockingIOError:
                pass
            for _ in range(50):
                await asyncio.sleep(0.002)
            assert sent < 8_000_000
            client.close()
            await until(lambda: behind.open == 0)

    run(loop_factory, scene())


def test_a_container_has_so_many_connections_and_no_more(tmp_path: Path, loop_factory: LoopFactory) -> None:
    async def scene() -> None:
        peers = Peers(NoCgroups((f"{CONTAINER:016x}",)), None)
        async with relayed(tmp_path, peers, most=3) as behind:
            sock = listener(tmp_path / "inside")
            behind.relay.add_listener(CONTAINER, sock.fileno(), os.geteuid())
            pairs = [await asyncio.open_unix_connection(tmp_path / "inside") for _ in range(4)]
            assert await pairs[3][0].read() == b""
            await until(lambda: behind.open == 3)
            assert {caller.container_id for _, caller in behind.seen} == {CONTAINER}
            assert all(not caller.refused and caller.authority for _, caller in behind.seen)
            behind.relay.remove_listener(CONTAINER)
            assert [await reader.read() for reader, _ in pairs] == [b""] * 4
            for _, writer in pairs:
                writer.close()
            sock.close()

    run(loop_factory, scene())


def test_a_container_that_asks_too_much_waits_and_nobody_else_does(tmp_path: Path, loop_factory: LoopFactory) -> None:
    """Two calls have tokens; a third gets its own only in a thousand years, whatever follows it."""
    paid, unpaid = bytes(PREFACE_BYTES) + 2 * frame(HEADERS), frame(HEADERS) + 10**6 * b"x"

    async def scene() -> None:
        peers = Peers(NoCgroups((f"{CONTAINER:016x}",)), os.getgid())
        async with relayed(tmp_path, peers, calls=Rate(3e-11, 2)) as behind:
            sock = listener(tmp_path / "inside")
            behind.relay.add_listener(CONTAINER, sock.fileno(), os.geteuid())
            flooding = [await asyncio.open_unix_connection(tmp_path / "inside") for _ in range(2)]
            for _, writer in flooding:
                writer.write(bytes(PREFACE_BYTES))
            await flooding[0][0].readexactly(PREFACE_BYTES)
            flooding[0][1].write(paid[PREFACE_BYTES:] + unpaid)
            assert await flooding[0][0].readexactly(len(paid) - PREFACE_BYTES) == paid[PREFACE_BYTES:]
            await flooding[1][0].readexactly(PREFACE_BYTES)
            flooding[1][1].write(unpaid)
            reader, writer = await asyncio.open_unix_connection(behind.public)
            writer.write(bytes(PREFACE_BYTES) + 50 * frame(HEADERS))
            await reader.readexactly(PREFACE_BYTES + 50 * len(frame(HEADERS)))
            for flooded, _ in flooding:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(flooded.read(1), 0.05)
            behind.relay.remove_listener(CONTAINER)
            for each in (writer, *(one for _, one in flooding)):
                each.close()
            sock.close()

    run(loop_factory, scene())


def test_a_connection_that_makes_the_service_hold_too_much_is_closed_and_no_other(
    tmp_path: Path, loop_factory: LoopFactory
) -> None:
    half = bytes(PREFACE_BYTES) + frame(HEADERS, stream=1) + frame(DATA, b"\0\0\0\4\0" + bytes(500), stream=1)

    async def scene() -> None:
        async with relayed(tmp_path, Peers(NoCgroups((f"{CONTAINER:016x}",)), None), held=1400) as behind:
            sock = listener(tmp_path / "inside")
            behind.relay.add_listener(CONTAINER, sock.fileno(), os.geteuid())
            pairs = [await asyncio.open_unix_connection(tmp_path / "inside") for _ in range(3)]
            for reader, writer in pairs[:2]:
                writer.write(half)
                assert await reader.readexactly(len(half)) == half
            pairs[2][1].write(half)
            assert await pairs[2][0].read() == b""
            await until(lambda: behind.open == 2)
            rest = frame(DATA, bytes(300), stream=1)
            pairs[0][1].write(rest)
            assert await pairs[0][0].readexactly(len(rest)) == rest, "what the third has sent is not held any more"
            behind.relay.remove_listener(CONTAINER)
            for _, writer in pairs:
                writer.close()
            sock.close()

    run(loop_factory, scene())


def test_who_is_in_another_container_is_refused(tmp_path: Path) -> None:
    async def scene() -> None:
        peers = Peers(NoCgroups((f"{CONTAINER:016x}",)), os.getgid())
        async with relayed(tmp_path, peers) as behind:
            sock = listener(tmp_path / "inside")
            behind.relay.add_listener(CONTAINER + 1, sock.fileno(), os.geteuid())
            writers = [(await asyncio.open_unix_connection(path))[1] for path in (tmp_path / "inside", behind.public)]
            await until(lambda: len(behind.seen) == 2)
            assert [bool(caller.refused) for _, caller in behind.seen] == [True, True]
            assert [caller.authority for _, caller in behind.seen] == [False, False]
            for writer in writers:
                writer.close()
            behind.relay.remove_listener(CONTAINER + 1)
            sock.close()

    asyncio.run(scene())


def test_a_connection_made_before_the_relay_accepts_is_served_afterwards(tmp_path: Path) -> None:
    async def scene() -> None:
        async with relayed(tmp_path) as behind:
            behind.relay.stop_accepting()
            reader, writer = await asyncio.open_unix_connection(behind.public)
            writer.write(b"early")
            for _ in range(20):
                await asyncio.sleep(0)
            assert behind.open == 0
            behind.relay.accept()
            assert await reader.readexactly(5) == b"early"
            writer.close()

    asyncio.run(scene())
