"""The methods of VolumeService that send and receive volumes.

    client                       service                     client                     service
      export, offset ──────────▶                               Header (once, first) ───▶
                    ◀─────────── Beginning: size                          ◀───────────── Ready: from where on
                    ◀─────────── Piece …                       Piece … ────────────────▶
                    ◀─────────── Done: digest                  Trailer ────────────────▶
                                                                          ◀───────────── Progress, now and then
                                                                          ◀───────────── Imported; or an error

The verbs are in `sysproc.volume_exports` and `sysproc.volume_imports`; other methods in
`sysproc.server.volume_service`.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from functools import partial

from nightos.sysproc.v1 import volume_service_pb2 as pb
from sysproc.held_files import Held
from sysproc.server.call import Call
from sysproc.server.convert import volume_transfers as convert
from sysproc.server.convert.volumes import volume_to_proto
from sysproc.server.starts import Starts
from sysproc.server.upload import with_progress
from sysproc.storage.requests import RequestKey
from sysproc.volume_exports import VolumeExports
from sysproc.volume_imports import Half, VolumeImports, bad_transfer, unfinished
from sysproc.volumes import Volumes

Beginning, Done = pb.ExportVolumeResponse.Beginning, pb.ExportVolumeResponse.Done
Ready, Imported = pb.ImportVolumeResponse.Ready, pb.ImportVolumeResponse.Imported
Requests = AsyncIterator[pb.ImportVolumeRequest]


class VolumeTransferMethods:
    """A part of the servicer of VolumeService."""

    def __init__(self, volumes: Volumes, exports: VolumeExports, imports: VolumeImports, starts: Starts) -> None:
        """starts: what is copied, or looked at, waits its turn there."""
        self._volumes, self._exports, self._imports, self._starts = volumes, exports, imports, starts

    async def ExportVolume(self, request: pb.ExportVolumeRequest, call: Call) -> AsyncIterator[pb.ExportVolumeResponse]:
        """See the proto."""
        name, wanted = convert.export_from_proto(request, call.viewer)
        row = await self._volumes.get(call.target, name)
        async with self._starts.turn(call.caller.container_id):
            await self._exports.prepare(row, wanted)
        async with self._exports.opened(row, wanted) as held:
            yield pb.ExportVolumeResponse(beginning=Beginning(size_bytes=held.state.size_bytes))
            async with aclosing(self._exports.pieces(held, wanted)) as pieces:
                async for piece, data in pieces:
                    yield convert.piece_to_proto(piece, data)
            yield pb.ExportVolumeResponse(done=Done(digest=await self._exports.digest(held)))

    async def ImportVolume(self, requests: Requests, call: Call) -> AsyncIterator[pb.ImportVolumeResponse]:
        """See the proto."""
        first = await anext(requests, None)
        if first is None or first.WhichOneof("part") != "header":
            raise bad_transfer("begins with `header`")
        key = call.key(first.header)
        known = await self._volumes.kept(key)
        if known is not None:
            yield pb.ImportVolumeResponse(imported=Imported(volume=volume_to_proto(known)))
            return
        wanted = convert.import_from_proto(first.header, call.target, call.viewer)
        await self._imports.begin(wanted)
        async with self._imports.opened(wanted) as held:
            yield pb.ImportVolumeResponse(ready=Ready(offset=held.state.next_offset))
            async with self._starts.turn(call.caller.container_id):
                size_bytes, digest = await self._received(requests, held)
                async with aclosing(self._finished(held, size_bytes, digest, key)) as answers:
                    async for answer in answers:
                        yield answer

    async def _received(self, requests: Requests, held: Held[Half]) -> tuple[int, bytes]:
        """What the trailer says: size and digest."""
        async for request in requests:
            match request.WhichOneof("part"):
                case "piece":
                    await self._imports.receive(held, convert.piece_from_proto(request.piece, held.state.wanted))
                case "trailer":
                    return convert.trailer_from_proto(request.trailer)
                case _:
                    raise bad_transfer("is one `header`, then pieces, then one `trailer`")
        raise unfinished()

    async def _finished(
        self, held: Held[Half], size_bytes: int, digest: bytes, key: RequestKey | None
    ) -> AsyncGenerator[pb.ImportVolumeResponse, None]:
        async with aclosing(with_progress(partial(self._imports.finish, held, size_bytes, digest, key))) as updates:
            async for update in updates:
                yield convert.import_update_to_proto(update)

    async def AbandonTransfer(self, request: pb.AbandonTransferRequest, call: Call) -> pb.AbandonTransferResponse:
        """See the proto."""
        key = (call.viewer, request.transfer_id.lower())
        self._exports.abandon(key)
        self._imports.abandon(key)
        return pb.AbandonTransferResponse()
