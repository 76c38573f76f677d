"""What is sent as a stream of requests, by a task, while the answers are read; and where its bytes come from.

Images and volumes are sent so by `sysproc_client.aio.images` and `sysproc_client.aio.volumes`.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import grpc

from sysproc_client._core.values import bad
from sysproc_client.aio.connection import Connection
from sysproc_client.aio.finished import finished, result_of
from sysproc_client.aio.sending import send, send_no_more
from sysproc_client.aio.threads import Threaded
from sysproc_client.aio.to_end import in_thread
from sysproc_client.images import CHUNK, tar_of

Read = Callable[[], Awaitable[bytes]]


# -- requests and answers


async def answers(
    call: "grpc.aio.StreamStreamCall[Any, Any]", requests: AsyncGenerator[Any, None]
) -> AsyncGenerator[Any, None]:
    """What a call answers to these requests. Raises grpc.RpcError, and whatever goes wrong in the requests."""
    failures: list[Exception] = []

    async def send_all() -> None:
        try:
            async with aclosing(requests):
                async for request in requests:
                    if not await send(call, request):
                        return
            await send_no_more(call)
        except grpc.RpcError:
            return  # there was no connection: whoever reads is told why
        except Exception as failure:
            failures.append(failure)
            call.cancel()  # what ended here would be a shorter archive

    sender = asyncio.ensure_future(send_all())
    try:
        while True:
            reading = await finished(call.read())
            if failures and reading.cancelled():
                raise failures[0]
            if (response := result_of(reading)) is grpc.aio.EOF:
                return
            yield response
    finally:
        call.cancel()
        sender.cancel()
        await asyncio.wait({sender})


async def uploaded(
    connection: Connection, call: "grpc.aio.StreamStreamCall[Any, Any]", requests: AsyncGenerator[Any, None]
) -> AsyncGenerator[Any, None]:
    """The same for a call that cannot be made again. Raises SysprocError."""
    attempts = connection.attempts(repeatable=False)
    try:
        async with aclosing(answers(call, requests)) as responses:
            async for response in responses:
                yield response
    except grpc.RpcError as error:
        raise await connection.final(attempts, error) from error


async def archive_requests(kind: Any, header: Any, read: Read) -> AsyncGenerator[Any, None]:
    """The header, the bytes, their digest: requests of this kind."""
    digest = hashlib.sha256()
    yield kind(header=header)
    while chunk := await read():
        digest.update(chunk)
        yield kind(data=chunk)
    yield kind(trailer=kind.Trailer(digest=digest.digest()))


# -- where the bytes come from


@asynccontextmanager
async def opened(source: str | os.PathLike[str] | BinaryIO, what: str) -> AsyncIterator[tuple[Read, int]]:
    """A folder as a tar, a file, or an open one: what reads it, and its size; 0: not known.

    An open one that blocks is not waited for by who is cancelled.
    """
    if not isinstance(source, (str, os.PathLike)):
        if not hasattr(source, "read"):
            raise bad(source, f"source of {what}", "Give a path, or an open file.")
        stream = source
        yield lambda: asyncio.to_thread(read_bytes, stream), 0
        return
    path = Path(source)
    if await in_thread(path.is_dir):
        async with Threaded(partial(tar_of, path)) as folder:
            yield lambda: in_thread(read_bytes, folder), 0
        return
    async with Threaded(partial(open, path, "rb")) as own:
        yield lambda: in_thread(read_bytes, own), (await in_thread(path.stat)).st_size


def read_bytes(stream: Any) -> bytes:
    """The next piece. TypeError for a file of text."""
    return bytes(memoryview(stream.read(CHUNK)))
