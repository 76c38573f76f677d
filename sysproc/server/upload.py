"""A tar that a client streams: header, data, perhaps a trailer, in this order; and the progress on the way back.

    client                          service
      Header (once, first) ────────▶
      Data … ──────────────────────▶ the verb pulls chunk by chunk
                         ◀────────── Progress, at most ten a second
      Trailer (digest; optional) ──▶
                         ◀────────── what was made; or an error

What becomes of the tar is decided in `sysproc.images` and `sysproc.volume_packing`.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from sysproc.errors import InvalidArgument

P = TypeVar("P")
T = TypeVar("T")

CHUNK_BYTES = 2**20
DIGEST_BYTES = 32
PROGRESS_EVERY_S = 0.1


class Upload:
    """The client's side of one import, in the order that it has to have: messages with `header`, `data`, `trailer`."""

    def __init__(self, parts: AsyncIterator[Any]) -> None:
        self._parts = parts
        self._announced, self._received = 0, 0
        self._digest: bytes | None = None

    async def header(self) -> Any:
        """The first part; raises InvalidArgument if it is another."""
        first = await anext(self._parts, None)
        if first is None or first.WhichOneof("part") != "header":
            raise out_of_order("begins with `header`")
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


async def with_progress(
    work: Callable[[Callable[[P], None]], Awaitable[T]],
) -> AsyncGenerator[P | T, None]:
    """Run the work and tell how far it is, now and then; its result last. It ends with whoever listens (`aclosing`)."""
    latest: list[P] = []

    def told(progress: P) -> None:
        latest[:] = [progress]

    running = asyncio.ensure_future(work(told))
    # If nobody listens any more, its failure is told to nobody, not to the log either.
    running.add_done_callback(lambda done: done.cancelled() or done.exception())
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
        resolution="See the request's message: header, data, trailer.",
        reason="BAD_UPLOAD",
    )
