"""Volumes to files and from files, for asyncio: files are read and written in threads.

What an export and a source are is in `sysproc_client.volume_transfers`, which is the same with threads.
"""

import asyncio
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import grpc

from nightos.sysproc.v1 import volume_pb2
from nightos.sysproc.v1 import volume_service_pb2 as service
from sysproc_client._core.errors import SysprocError, from_rpc_error
from sysproc_client._core.image_pieces import Digests, Piece, write_sparse
from sysproc_client._core.retry import fate_of
from sysproc_client._core.values import bad
from sysproc_client.aio.connection import Connection
from sysproc_client.aio.threads import Threaded
from sysproc_client.aio.to_end import in_thread, to_end
from sysproc_client.aio.uploads import answers
from sysproc_client.volume_transfers import (
    Export,
    PathLike,
    Progress,
    Readable,
    Source,
    damaged,
    fresh_file,
    source_of_file,
    source_of_stream,
    write_all,
)

Imported = service.ImportVolumeResponse.Imported


async def abandon(connection: Connection, transfer_id: str) -> None:
    """Let the service forget what it keeps; it does so by itself in ten minutes."""
    with suppress(SysprocError):
        request = service.AbandonTransferRequest(transfer_id=transfer_id)
        await connection.call(connection.stubs.volumes.AbandonTransfer, request)


# -- export


class ToItsEnd:
    """A call whose last answer is handed out once the service has ended it: who hangs up is expected to come back."""

    def __init__(self, call: "grpc.aio.UnaryStreamCall[Any, service.ExportVolumeResponse]") -> None:
        self._call = call

    async def __aiter__(self) -> AsyncIterator[service.ExportVolumeResponse]:
        async for answer in self._call:
            if answer.WhichOneof("part") == "done":
                with suppress(grpc.RpcError):  # all has come
                    async for _ in self._call:
                        pass
            yield answer

    def cancel(self) -> None:
        """Hang up."""
        self._call.cancel()


async def exported(connection: Connection, export: Export, write: Callable[[Piece], object]) -> bytes:
    """All of it, piece by piece; the digest of the image. Raises SysprocError."""
    ask, attempts = connection.stubs.volumes.ExportVolume, connection.attempts()
    try:
        async with aclosing(connection.repeated(lambda: ToItsEnd(ask(export.request)), attempts)) as responses:
            async for answer in responses:
                kind = answer.WhichOneof("part")
                if kind == "beginning":
                    export.size = answer.beginning.size_bytes
                elif kind == "piece":
                    await in_thread(export.receive, answer.piece, write)
                    export.told()
                else:
                    return export.checked(answer.done.digest)
    except BaseException:
        await to_end(abandon(connection, export.request.export_id))
        raise
    raise damaged("it has ended too early")


async def export_to(
    connection: Connection,
    ref: volume_pb2.VolumeRef,
    target: PathLike | BinaryIO,
    *,
    zstd: bool | None,
    replace: bool,
    progress: Progress,
) -> bytes:
    """See `AsyncVolume.export_to`."""
    if not isinstance(target, (str, os.PathLike)):
        if not hasattr(target, "write"):
            raise bad(target, "target of an export", "Give a path, or a file that is open for writing.")
        stream = target
        return await exported(
            connection, Export(ref, zstd=bool(zstd), progress=progress), lambda piece: write_all(stream, piece)
        )
    path = Path(target)
    packed = path.suffix == ".zst" if zstd is None else zstd
    async with Threaded(partial(fresh_file, path, replace=replace)) as file:
        export, write = Export(ref, zstd=packed, progress=progress), write_all if packed else write_sparse
        digest = await exported(connection, export, lambda piece: write(file, piece))
        if not packed:
            await in_thread(file.truncate, export.request.offset)
        return digest


# -- import


class Import:
    """One import, over as many calls as it takes."""

    def __init__(
        self,
        header: service.ImportVolumeRequest.Header,
        source: Source,
        progress: Progress,
        read: Callable[..., Coroutine[Any, Any, Any]],
    ) -> None:
        """read: how a blocking read is waited for."""
        self._header, self._source, self._progress, self._read = header, source, progress, read
        self._digests = Digests()

    async def run(self, connection: Connection) -> Imported:
        """All of it. Raises SysprocError, OSError."""
        attempts = connection.attempts()
        try:
            while True:
                try:
                    return await self._once(connection)
                except grpc.RpcError as error:
                    failure = from_rpc_error(error, connection.endpoint)
                    await asyncio.sleep(await connection.pause(attempts, fate_of(error), failure))
        except BaseException:
            await to_end(abandon(connection, self._header.request_id))
            raise

    async def _once(self, connection: Connection) -> Imported:
        ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        call = connection.stubs.volumes.ImportVolume()
        async with aclosing(answers(call, self._requests(ready))) as responses:
            async for answer in responses:
                kind = answer.WhichOneof("update")
                if kind == "imported":
                    imported: Imported = answer.imported
                    return imported
                if kind == "ready":
                    ready.set_result(answer.ready.offset)
                else:
                    self._progress(answer.progress.copied_bytes, 0)
        raise ConnectionError("the service ended the import without a result")

    async def _requests(self, ready: "asyncio.Future[int]") -> AsyncGenerator[service.ImportVolumeRequest, None]:
        yield service.ImportVolumeRequest(header=self._header)
        pieces = await self._read(self._source.pieces, await ready)
        while (piece := await self._read(next, pieces, None)) is not None:
            digest = self._digests.add(piece)
            sent = service.Piece(offset=piece.offset, size_bytes=piece.size, data=piece.data, sha256=digest)
            yield service.ImportVolumeRequest(piece=sent)
            self._progress(piece.offset + piece.size, self._source.size)
        trailer = service.ImportVolumeRequest.Trailer(digest=b"" if self._source.zstd else self._digests.of_image())
        yield service.ImportVolumeRequest(trailer=trailer)


async def import_from(
    connection: Connection,
    header: service.ImportVolumeRequest.Header,
    source: PathLike | Readable,
    progress: Progress,
) -> Imported:
    """See `AsyncVolumes.import_from`."""

    async def send(found: Source, read: Callable[..., Coroutine[Any, Any, Any]]) -> Imported:
        packed = service.TRANSFER_ENCODING_ZSTD if found.zstd else service.TRANSFER_ENCODING_RAW
        header.encoding, header.size_bytes = packed, found.size
        return await Import(header, found, progress, read).run(connection)

    if not isinstance(source, (str, os.PathLike)):
        if not hasattr(source, "read"):
            raise bad(source, "source of a volume", "Give a path, or an open file.")
        return await send(await asyncio.to_thread(source_of_stream, source), asyncio.to_thread)
    async with Threaded(partial(open, source, "rb", buffering=0)) as file:
        regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        return await send(await in_thread(source_of_file if regular else source_of_stream, file), in_thread)
