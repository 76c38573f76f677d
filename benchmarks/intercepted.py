"""What the interceptor adds to a call: who calls, may they, what do they name, one line of log; no grpcio, no socket.

The same handler as the server's, called directly in one loop; the servicer behind it answers at once. A caller inside a
container names one three levels below: remembered since the last change, or looked up in the database.
"""

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from benchmarks.measure import Timing, timed_ms
from nightos.sysproc.v1 import container_service_pb2 as pb
from nightos.sysproc.v1.ref_pb2 import ContainerRef
from sysproc.server import logs
from sysproc.server.access import served
from sysproc.server.call import Call
from sysproc.server.interceptor import Interceptor
from sysproc.server.peer import Caller
from sysproc.server.targets import Resolver
from sysproc.storage import hierarchy
from sysproc.storage.database import Database
from sysproc.storage.hierarchy import ContainerRow, NewContainer
from sysproc.storage.images import Content, put_image

CALLS = 100
SERVICE: Any = pb.DESCRIPTOR.services_by_name["ContainerService"]
METHOD = "ContainerService/GetContainer"
PATH = f"/{SERVICE.full_name}/GetContainer"
DEPTH = 4


class Answers:
    """Every method, answered empty."""

    def __getattr__(self, _: str) -> Callable[[Message, Call], Awaitable[Message]]:
        return self.answer

    async def answer(self, _: Message, call: Call) -> Message:
        """Nothing but a message of the right kind."""
        return call.method.response()


class Context:
    """As much of grpcio's as is asked of it."""

    def peer(self) -> str:
        """Which connection; the caller is known by it."""
        return "unix:"


def fill(connection: Any) -> None:
    """A chain of containers, 1 at the top."""
    put_image(connection, "i", Content("d", 1, 1, 1, 0), replace=False)
    for number in range(1, DEPTH + 1):
        new = NewContainer(number, number - 1 or None, "", "h", "i", "d", None, None, None, 1, (), {}, "default")
        hierarchy.insert_container(connection, new)


async def used(_: Iterable[ContainerRow]) -> None:
    """What lifetimes would note."""


async def calls(interceptor: Interceptor, database: Database, again: bool) -> None:
    """So many calls, one after the other."""
    handler: Any = interceptor.service(Details())
    request = pb.GetContainerRequest(container=ContainerRef(id=DEPTH)).SerializeToString()
    for _ in range(CALLS):
        if again:
            database.revision += 1
        await handler.unary_unary(request, Context())
    if interceptor.counts[METHOD, "OK"] % CALLS:
        raise RuntimeError(f"not every call went well: {interceptor.counts}")


class Details:
    """What grpcio tells of a call before it begins."""

    method = PATH
    invocation_metadata: tuple[tuple[str, str | bytes], ...] = ()


def intercepted(runs: int) -> Sequence[Timing]:
    """So many calls at a time; the time of one."""
    with tempfile.TemporaryDirectory(prefix="sysproc-bench-") as directory, open(os.devnull, "w") as nowhere:
        logs.configure("json", "info", nowhere)
        database = Database(Path(directory) / "db")
        caller = Caller(1, 0, 7, authority=True)
        table = list(served(SERVICE, Answers()))
        interceptor = Interceptor(table, lambda _: caller, Resolver(database), used, CALLS)
        with asyncio.Runner() as runner:
            runner.run(database.write(fill))
            times: dict[str, list[float]] = {"remembered": [], "looked up": []}
            for _ in range(runs):
                for name, taken in times.items():
                    work = calls(interceptor, database, name == "looked up")
                    taken.append(timed_ms(lambda work=work: runner.run(work)) / CALLS)  # type: ignore[misc]  # mypy: lambda
        database.close()
    return [Timing(f"GetContainer, {name}", tuple(taken)) for name, taken in times.items()]
