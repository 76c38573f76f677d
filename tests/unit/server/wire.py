"""A real gRPC server with the interceptor and a servicer that notes what reaches it, and a client of it.

The tree behind it is web / worker / (nameless) / deep, and web / uncle. Used by the tests beside this.
"""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc import aio
from grpc_health.v1 import health_pb2

from nightos.sysproc.v1 import container_service_pb2 as containers
from nightos.sysproc.v1 import process_service_pb2 as processes
from nightos.sysproc.v1 import system_service_pb2 as system
from sysproc.server.access import Served, served
from sysproc.server.call import Call
from sysproc.server.health import Health
from sysproc.server.interceptor import Interceptor
from sysproc.server.peer import Caller
from sysproc.server.targets import Resolver
from sysproc.storage import hierarchy
from sysproc.storage.database import Database
from sysproc.storage.hierarchy import ContainerRow, NewContainer
from sysproc.storage.images import Content, put_image
from sysproc_client.aio.sending import send, send_no_more

HOST = Caller(None, 0, 1, authority=True)
INSIDE_USER = Caller(0xA, 33, 1, authority=False)
SERVICES: list[Any] = [
    containers.DESCRIPTOR.services_by_name["ContainerService"],
    processes.DESCRIPTOR.services_by_name["ProcessService"],
    system.DESCRIPTOR.services_by_name["SystemService"],
]
MOST_CALLS = 8
WEB, WORKER, NAMELESS, DEEP, UNCLE = 0xA, 0xB, 0xC0FFEE, 0xD, 0xE
IN_WORKER = Caller(WORKER, 0, 7, authority=True)


class Answers:
    """A servicer of everything: it notes what reaches it, and answers empty or by `do`."""

    def __init__(self) -> None:
        self.seen: list[tuple[Call, Any]] = []
        self.do: Callable[[], Any] = lambda: None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return self.stream if name in ("Exec", "DestroyContainer") else self.unary

    async def unary(self, request: Message, call: Call) -> Message:
        self.seen.append((call, request))
        if (doing := self.do()) is not None:
            await doing
        return call.method.response()

    async def stream(self, request: Any, call: Call) -> AsyncIterator[Message]:
        messages = [one async for one in request] if call.method.client_streaming else request
        self.seen.append((call, messages))
        if (doing := self.do()) is not None:
            await doing
        yield call.method.response()


class Raw:
    """Bytes that need not be a message."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def SerializeToString(self) -> bytes:
        """As they are."""
        return self._data


@dataclass
class Wire:
    answers: Answers
    health: Health
    interceptor: Interceptor
    database: Database
    channel: Any  # grpc's types cannot say bytes in, bytes out
    named: list[int]  # by calls that were authorized
    caller: list[Caller] = field(default_factory=lambda: [HOST])

    async def call(self, path: str, request: Message | bytes, timeout: float | None = 10) -> bytes:
        raw = request if isinstance(request, bytes) else request.SerializeToString()
        name = path if path.startswith("/") else f"/nightos.sysproc.v1.{path}"
        return await self.channel.unary_unary(name)(raw, timeout=timeout)  # type: ignore[no-any-return]  # bytes

    async def exec(self, *sent: processes.ExecRequest | bytes) -> list[bytes]:
        stream = self.channel.stream_stream("/nightos.sysproc.v1.ProcessService/Exec")(timeout=10)
        for one in sent:
            if not await send(stream, Raw(one) if isinstance(one, bytes) else one):
                break
        await send_no_more(stream)
        answers = []
        while (answer := await stream.read()) is not aio.EOF:
            answers.append(answer)
        return answers

    async def refused(self, path: str, request: Message | bytes, code: grpc.StatusCode) -> ErrorInfo:
        with pytest.raises(aio.AioRpcError) as refusal:
            await self.call(path, request)
        return self.info(refusal.value, code)

    def info(self, error: aio.AioRpcError, code: grpc.StatusCode) -> ErrorInfo:
        assert (error.code(), self.answers.seen) == (code, [])
        return info_of(error)


def info_of(error: aio.AioRpcError) -> ErrorInfo:
    status = Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (status.message, status.code) == (error.details(), error.code().value[0])
    assert info.domain == "sysproc.nightos"
    assert info.metadata["resolution"]
    return info


def new(container_id: int, name: str, parent: int | None) -> NewContainer:
    return NewContainer(container_id, parent, name, "h", "i", "d", None, None, None, 1, (), {}, "default")


def fill(connection: Any) -> None:
    put_image(connection, "i", Content("d", 1, 1, 1, 0), replace=False)
    for container_id, name, parent in (
        (WEB, "web", None),
        (WORKER, "worker", WEB),
        (NAMELESS, "", WORKER),
        (DEEP, "deep", NAMELESS),
        (UNCLE, "uncle", WEB),
    ):
        hierarchy.insert_container(connection, new(container_id, name, parent))


@asynccontextmanager
async def wire(tmp_path: Path) -> AsyncIterator[Wire]:
    database = Database(tmp_path / "db")
    await database.write(fill)
    answers, health = Answers(), Health(one.full_name for one in SERVICES)
    await health.set(True)
    table: list[Served] = [one for service in SERVICES for one in served(service, answers)]
    health_service: Any = health_pb2.DESCRIPTOR.services_by_name["Health"]
    table += served(health_service, health)
    caller: list[Caller] = [HOST]
    named: list[int] = []

    async def used(rows: Iterable[ContainerRow]) -> None:
        named.extend(row.id for row in rows)

    interceptor = Interceptor(table, lambda _: caller[0], Resolver(database), used, MOST_CALLS)
    server = aio.server(handlers=(interceptor,))
    server.add_insecure_port(f"unix:{tmp_path}/s")
    await server.start()
    try:
        async with aio.insecure_channel(f"unix:{tmp_path}/s") as channel:
            yield Wire(answers, health, interceptor, database, channel, named, caller)
    finally:
        await server.stop(None)
        database.close()
