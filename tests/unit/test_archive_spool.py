"""What comes in is counted while others have their turn."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import zstandard

from sysproc.archive_size import ArchiveCounter
from sysproc.archive_spool import Spooled, spool_archive
from sysproc.tar_counter import TarCounter, TarCounts
from tests.archives import Archive

UNPACKED = 200 << 20
BOMB = zstandard.compress(bytes(UNPACKED))


async def one(chunk: bytes) -> AsyncIterator[bytes]:
    """A stream of one chunk."""
    yield chunk


async def spooled(path: Path, chunk: bytes, counter: ArchiveCounter) -> Spooled:
    """Into a new file."""
    with path.open("wb") as file:
        return await spool_archive(file.fileno(), one(chunk), lambda _: None, counter)


def test_a_chunk_is_written_and_counted_to_its_end(tmp_path: Path) -> None:
    found = asyncio.run(spooled(tmp_path / "spool", BOMB, ArchiveCounter()))
    assert found == Spooled(hashlib.sha256(BOMB).hexdigest(), len(BOMB), UNPACKED, None)
    assert (tmp_path / "spool").read_bytes() == BOMB


def test_entries_are_counted_for_who_wants_to_know(tmp_path: Path) -> None:
    archive = Archive()
    archive.add("file", bytes(5000))
    counter = ArchiveCounter(TarCounter())
    assert asyncio.run(spooled(tmp_path / "spool", archive.bytes(), counter)).counts == TarCounts(1, 2)


class CancelledAtItsFirstStep(ArchiveCounter):
    """Cancels the task that counts when that has made one step."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop, self.steps = loop, 0
        self.task: asyncio.Task[Spooled] | None = None

    def feed(self, chunk: bytes) -> Iterator[None]:
        """See above."""
        for _ in super().feed(chunk):
            self.steps += 1
            assert self.task
            self._loop.call_soon_threadsafe(self.task.cancel)
            yield


def test_a_cancel_ends_it_after_the_step_that_is_under_way(tmp_path: Path) -> None:
    async def cancelled() -> None:
        counter = CancelledAtItsFirstStep(asyncio.get_running_loop())
        counter.task = asyncio.create_task(spooled(tmp_path / "spool", BOMB, counter))
        with pytest.raises(asyncio.CancelledError):
            await counter.task
        assert counter.steps == 1 and counter.unpacked_bytes < UNPACKED

    asyncio.run(cancelled())
