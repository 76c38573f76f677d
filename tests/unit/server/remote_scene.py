"""A relay that answers on TCP by TLS, and its callers; used by `test_remote` and `test_let_in`."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from structlog.testing import capture_logs
from structlog.typing import EventDict

from sysproc.server.let_in import LetIn
from sysproc.server.remote import Admission, RemoteListener
from sysproc.server.setting_values import TcpEndpoint
from sysproc.server.tcp_listener import make
from sysproc.server.throttle import Rate
from sysproc.server.tls import ServerTls
from sysproc_client.certificates import Authority, Pair, Validity
from tests.unit.server.authorities import authority, client_context, files_of
from tests.unit.server.test_relay import Behind, relayed

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
CONTAINER = 0xC0FFEE00C0FFEE
PLENTY = Rate(per_second=1000, burst=1000)


@dataclass
class Scene:
    """A relay that answers on TCP, and the authority of its callers."""

    behind: Behind
    authority: Authority
    port: int
    let_in: LetIn
    logs: list[EventDict]
    containers: set[int] = field(default_factory=set)

    async def call(self, container_id: str | None = None, validity: Validity | None = None) -> Streams:
        pair = self.authority.issue_client(container_id, validity)
        return await self.call_with(pair)

    async def call_with(self, pair: Pair) -> Streams:
        context = client_context(self.authority.directory / "ca.pem", pair)
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=context)

    async def silent(self) -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        return sock

    def refusals(self, words: str) -> int:
        return sum(words in str(event.get("reason")) for event in self.logs)

    def revoke(self, number: int) -> None:
        """The certificate that was issued as this one, from 0, for callers."""
        self.authority.revoke([one.serial for one in self.authority.issued() if one.what == "client"][number])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@asynccontextmanager
async def answered(
    tmp_path: Path, most: int = 64, calls: Rate = PLENTY, accepts: Rate = PLENTY
) -> AsyncIterator[Scene]:
    with capture_logs() as logs:
        async with relayed(tmp_path, most=most, calls=calls, accepts=accepts) as behind:
            made, port = authority(tmp_path / "ca"), free_port()
            tls = ServerTls(files_of(made.directory))
            scene = Scene(behind, made, port, LetIn(tls), logs)

            async def exists(container_id: int) -> bool:
                return container_id in scene.containers

            admission = Admission(tls, exists, behind.relay.allowances, scene.let_in)
            behind.relay.add(RemoteListener(make(remote_endpoint(port)), behind.relay.carry, admission))
            yield scene


def remote_endpoint(port: int) -> TcpEndpoint:
    return TcpEndpoint("127.0.0.1", port)


def run(loop_factory: LoopFactory, scene: Coroutine[None, None, None]) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(scene)


async def ended(streams: Streams) -> bool:
    """Whether the other side has ended the connection, in whatever way."""
    try:
        return await streams[0].read() == b""
    except OSError:
        return True
