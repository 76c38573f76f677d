"""One client attached to one exec'd process: what it is told, and what it may do.

    async with handle:  async for event in handle.events(): …      beside it: write_stdin, resize, signal, received

Several may be attached to the same process: each sees all output; input of all is one stream, by offset. What is
shared between them is `sysproc.exec_held`.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self, cast

from sysproc.errors import FailedPrecondition, OutOfRange, SysprocError
from sysproc.exec_events import Event, Exited, Started, StdinAccepted, Stream
from sysproc.exec_failure import failure_text
from sysproc.exec_files import Asked
from sysproc.exec_held import HeldExec
from sysproc.exec_reader import Reader
from sysproc.isolation.exec_state import Phase, Slot, StatePage
from sysproc.storage.vsf.clone import disk_full_as_domain_error
from sysproc.to_end import to_end
from sysproc.undo import Undo

# So much input may be kept that the process has not read; clients are told that it is accepted only up to here.
STDIN_WINDOW = 1 << 20
# More than that comes only from clients that do not keep to what is accepted: they wait.
STDIN_BOUND = 4 << 20


class ExecHandle:
    """See the module's docstring. close() lets go; the process lives on."""

    def __init__(self, held: HeldExec, stdout_offset: int | None, stderr_offset: int | None) -> None:
        self._held, self._error = held, cast(SysprocError | None, None)
        self._changed = asyncio.Event()
        offsets: dict[Stream, int | None] = {"stdout": stdout_offset, "stderr": stderr_offset}
        with Undo() as undo:
            self._readers: dict[Stream, Reader] = {}
            for stream, output in held.outputs.items():
                self._readers[stream] = output.attach(offsets[stream])
                undo.add(f"the reader of {stream}", self._readers[stream].detach)
            undo.pop_all()
        held.acquire()
        held.watch(self._changed.set)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go; what the other readers have taken may be forgotten from now on. Idempotent."""
        if not self._readers:
            return
        self._held.unwatch(self._changed.set)
        for reader in self._readers.values():
            reader.detach()
        self._readers = {}
        self._held.release()

    @property
    def exec_id(self) -> str:
        """The name of the process."""
        return self._held.files.exec_id

    # -- what it is told

    async def events(self) -> AsyncIterator[Event]:
        """Everything, in order; ends with Exited. Raises what `fail` was given."""
        yield self._started()
        accepted = self._accepted()
        while True:
            self._changed.clear()
            # Asked before reading: what is not there then will never be.
            end = exited(self._held.page, self._held.asked)
            if self._error is not None:
                raise self._error
            if (now := self._accepted()) > accepted:
                accepted = now
                yield StdinAccepted(accepted)
            busy = False
            for reader in self._readers.values():
                if (output := await reader.next()) is not None:
                    busy = True
                    yield output
                    reader.sent(output)
            if not busy and end is not None:
                yield end
                return
            if not busy:
                await self._changed.wait()

    def fail(self, error: SysprocError) -> None:
        """End the events with this error: the client has sent something wrong."""
        self._error = error
        self._changed.set()

    def _started(self) -> Started:
        freed = {stream: output.spool.freed for stream, output in self._held.outputs.items()}
        return Started(
            exec_id=self.exec_id,
            stdout_offset=freed["stdout"],
            stderr_offset=freed.get("stderr", 0),
            stdin_offset=self._stdin_size(),
            spool_bytes=self._held.asked.spool_bytes,
        )

    def _accepted(self) -> int:
        size, page = self._stdin_size(), self._held.page
        return size if page[Slot.STDIN_BROKEN] else min(size, page[Slot.STDIN_CONSUMED] + STDIN_WINDOW)

    # -- what it may do

    def received(self, stdout_offset: int, stderr_offset: int) -> None:
        """The client has these, and will not ask for them again. Raises OutOfRange for what it was not sent."""
        offsets: dict[Stream, int] = {"stdout": stdout_offset, "stderr": stderr_offset}
        for stream, reader in self._readers.items():
            reader.confirm(offsets[stream])

    def _stdin_size(self) -> int:
        stdin = self._held.opened.stdin
        return 0 if stdin is None else os.fstat(stdin).st_size

    async def write_stdin(self, offset: int, data: bytes) -> None:
        """Input; what is before the offset reached is ignored, so that sending again is safe.

        Raises OutOfRange for a gap, FailedPrecondition for a process without input and after the end of input,
        ResourceExhausted.
        """
        stdin = self._held.opened.stdin
        if stdin is None:
            raise no_stdin(self.exec_id)
        async with self._held.stdin_lock:
            await self._held.until(self._has_room)
            size = self._stdin_size()
            if offset > size:
                raise stdin_gap(offset, size)
            new = data[size - offset :]
            if new and self._held.page[Slot.STDIN_CLOSED]:
                raise stdin_closed(self.exec_id, size)
            if new:
                await to_end(self._store, stdin, size, new)
                self._held.wake()
                self._held.tell()

    def _has_room(self) -> bool:
        page = self._held.page
        return bool(page[Slot.STDIN_BROKEN]) or self._stdin_size() - page[Slot.STDIN_CONSUMED] < STDIN_BOUND

    def _store(self, stdin: int, size: int, data: bytes) -> None:
        """What nobody will read is only counted."""
        with disk_full_as_domain_error(self._held.files.path / "stdin"):
            if self._held.page[Slot.STDIN_BROKEN]:
                os.ftruncate(stdin, size + len(data))
                return
            rest = memoryview(data)
            while rest:
                written = os.pwrite(stdin, rest, size)
                rest, size = rest[written:], size + written

    async def close_stdin(self) -> None:
        """No more input than what was written. Nothing happens for a process without input."""
        async with self._held.stdin_lock:
            self._held.page.close_stdin()
            self._held.wake()

    def resize(self, rows: int, columns: int) -> None:
        """Another size of the terminal. Nothing happens without one."""
        self._held.page.set_window(rows, columns)
        self._held.wake()

    async def signal(self, number: int) -> None:
        """A signal for the process, with a terminal for its foreground process group; none if it has ended."""
        page = self._held.page
        while self._held.end() is None and page.phase is not Phase.ENDED and not page.ask_signal(number):
            done = page[Slot.SIGNALS_DONE]
            await self._held.until(lambda: page[Slot.SIGNALS_DONE] > done)  # noqa: B023 - awaited in this round
        self._held.wake()


def exited(page: StatePage, asked: Asked) -> Exited | None:
    """How it ended, with words for a failure; None while it runs."""
    end = page.end()
    if end is None:
        return None
    return Exited(
        code=end.code,
        signal=end.signal,
        stdout_size=end.stdout_size,
        stderr_size=end.stderr_size,
        failure="" if end.failure is None else failure_text(end.failure, asked.argv[0], asked.directory),
        ended_at=end.ended_ns / 1e9,
    )


def no_stdin(exec_id: str) -> FailedPrecondition:
    """The error for input of a process that reads /dev/null."""
    return FailedPrecondition(
        f"Process {exec_id} was started without an input.",
        resolution="Start it with `stdin` (`exec -i`).",
        reason="NO_STDIN",
    )


def stdin_closed(exec_id: str, size: int) -> FailedPrecondition:
    """The error for input after what was said to be all of it."""
    return FailedPrecondition(
        f"The input of process {exec_id} was closed after {size} bytes: there can be no more.",
        resolution="Send CloseStdin after the last input, and once all who write have sent theirs.",
        reason="STDIN_CLOSED",
        metadata={"accepted": str(size)},
    )


def stdin_gap(offset: int, size: int) -> OutOfRange:
    """The error for input that would leave a gap."""
    return OutOfRange(
        f"Input at {offset} would leave a gap: {size} bytes are there.",
        resolution="Send again from the offset that was accepted last.",
        reason="STDIN_OFFSET",
        metadata={"accepted": str(size)},
    )
