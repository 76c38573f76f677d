"""A tar that a client streams: header, data, perhaps a trailer, in this order; and the progress on the way back.

    client                          service
      Header (once, first) ────────▶
      Data … ──────────────────────▶ images.import_image pulls chunk by chunk
                         ◀────────── Progress, at most ten a second
      Trailer (digest; optional) ──▶
                         ◀────────── Imported; or an error

What becomes of the tar is decided in `sysproc.images`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from nightos.sysproc.v1 import image_service_pb2 as pb
from sysproc.errors import InvalidArgument
from sysproc.images import Imported, Progress
from sysproc.server import validate

CHUNK_BYTES = 2**20
DIGEST_BYTES = 32
PROGRESS_EVERY_S = 0.1


class Upload:
    """The client's side of one import, in the order that it has to have."""

    def __init__(self, parts: AsyncIterator[pb.ImportImageRequest]) -> None:
        self._parts = parts
        self._announced, self._received = 0, 0
        self._digest: bytes | None = None

    async def header(self) -> pb.ImportImageRequest.Header:
        """The first part; raises InvalidArgument if it is another, or names no image."""
        first = await anext(self._parts, None)
        if first is None or first.WhichOneof("part") != "header":
            raise out_of_order("begins with `header`")
        validate.valid(lambda findings: findings.name("header.name", first.header.name))
        self._announced = first.header.size_bytes
        return first.header

    async def chunks(self) -> AsyncIterator[bytes]:
        """The tar; raises InvalidArgument for parts out of order."""
        async for part in self._parts:
            match part.WhichOneof("part"):
                case "data" if self._digest is None and len(part.data) <= CHUNK_BYTES:
                    self._received += len(part.data)
                    yield part.data
                case "data" if self._digest is None:
                    raise out_of_order(f"has at most {CHUNK_BYTES} bytes of data in one message")
                case "trailer" if self._digest is None and len(part.trailer.digest) == DIGEST_BYTES:
                    self._digest = part.trailer.digest
                case "trailer" if self._digest is None:
                    raise out_of_order(f"ends with a digest of {DIGEST_BYTES} bytes, SHA-256")
                case _:
                    raise out_of_order("is one `header`, then `data`, then at most one `trailer`")
        if self._announced not in (0, self._received):
            raise out_of_order(f"has as many bytes as it announced: not {self._received} of {self._announced}")

    def digest(self) -> bytes | None:
        """What the client says that it has sent; known when there are no more chunks."""
        return self._digest


Work = Callable[[Callable[[Progress], None]], Awaitable[Imported]]


async def with_progress(work: Work) -> AsyncIterator[Progress | Imported]:
    """Run the work and tell how far it is, now and then; its result last. It ends with whoever listens."""
    latest: list[Progress] = []

    def told(progress: Progress) -> None:
        latest[:] = [progress]

    running = asyncio.ensure_future(work(told))
    try:
        while not running.done():
            await asyncio.wait({running}, timeout=PROGRESS_EVERY_S)
            if latest and not running.done():
                yield latest.pop()
        yield running.result()
    finally:
        if not running.done():
            running.cancel()
            await asyncio.wait({running})


def out_of_order(rule: str) -> InvalidArgument:
    """The error for an upload that does not keep to the order."""
    return InvalidArgument(
        f"An import {rule}.",
        resolution="See ImportImageRequest: header, data, trailer.",
        reason="BAD_UPLOAD",
    )
