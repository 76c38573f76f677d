"""A tar that comes in, written to a file: how large the filesystem is that it needs is known only when all is there.

Where it comes from is settled in `sysproc.server.upload`, what becomes of it in `sysproc.images` and
`sysproc.volume_packing`.
"""

import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sysproc.archive_size import ArchiveCounter
from sysproc.errors import InvalidArgument
from sysproc.storage.vsf.clone import disk_full_as_domain_error
from sysproc.tar_counter import TarCounts
from sysproc.to_end import to_end


@dataclass(frozen=True)
class Spooled:
    """Its digest in hex, its size, its size without its compression; what was counted in it, if it was understood."""

    digest: str
    size: int
    unpacked_bytes: int
    counts: TarCounts | None


async def spool_archive(
    fd: int, chunks: AsyncIterator[bytes], told: Callable[[int], object], counter: ArchiveCounter
) -> Spooled:
    """Write it to the file. told: how many bytes have come so far. Raises ResourceExhausted, InvalidArgument."""
    digest, size = hashlib.sha256(), 0
    async for chunk in chunks:
        await to_end(_write, fd, chunk)
        steps = counter.feed(chunk)
        while await to_end(_step, steps):
            pass
        digest.update(chunk)
        size += len(chunk)
        told(size)
    return Spooled(digest.hexdigest(), size, counter.unpacked_bytes, counter.tar)


def _write(fd: int, chunk: bytes) -> None:
    with disk_full_as_domain_error(Path("import")):
        view = memoryview(chunk)
        while view:
            view = view[os.write(fd, view) :]


def _step(steps: Iterator[None]) -> bool:
    """Whether there are more of them."""
    return next(steps, False) is None


def check_digest(digest: str, expected: bytes | None) -> None:
    """Raise InvalidArgument if the client sent something else than it meant to."""
    if expected is not None and expected.hex() != digest:
        raise InvalidArgument(
            "The archive arrived changed: its digest is another.",
            details=f"Expected {expected.hex()}, got {digest}.",
            resolution="Send it again.",
            reason="DIGEST_MISMATCH",
        )
