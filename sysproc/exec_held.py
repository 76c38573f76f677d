"""One exec'd process, held: its files, its state page, and the eventfds by which it and the daemon poke each other.

    supervisor --NEWS--> HeldExec --changed--> everybody who watches it        the truth is in page and files
    readers, writers ---> page, files --WAKE--> supervisor

Held while it runs or somebody looks at it. Its life is not ours: the daemon may let go and hold it again at any time.
What is kept on disk is in `sysproc.exec_files`; what one attached client sees is in `sysproc.exec_handle`.
"""

import asyncio
import errno
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sysproc.exec_files import Asked, ExecFiles, OpenFiles
from sysproc.exec_left_behind import end_left_behind
from sysproc.exec_reader import SharedOutput
from sysproc.isolation.exec_spec import Fd
from sysproc.isolation.exec_state import Phase, ProcessEnd, Slot, StatePage
from sysproc.isolation.spool import Spool
from sysproc.linux.pidfd import pidfd_getfd, pidfd_open
from sysproc.undo import Undo

SUPERVISOR_PATIENCE_S = 5.0
_PAUSE_S = 0.002
# It has ended, or has closed its end before it does.
_ENDS_NOW = (errno.ESRCH, errno.EBADF)


@dataclass(frozen=True)
class Line:
    """What connects a living supervisor and us; the fds are ours."""

    supervisor: int
    wake: int
    news: int

    def close(self) -> None:
        """Close the fds; call it once."""
        for fd in (self.supervisor, self.wake, self.news):
            os.close(fd)


class HeldExec:
    """See the module's docstring. asyncio, from one loop."""

    def __init__(self, found: "Found") -> None:
        self.files, self.asked, self.page = found.files, found.asked, found.page
        self.opened, self._line = found.opened, found.line
        self.outputs = {one.stream: one for one in self._outputs()}
        self.stdin_lock = asyncio.Lock()
        self._watchers: set[Callable[[], None]] = set()
        self._users = 0
        self.on_unused: Callable[[], None] = self.close
        if found.line is not None:
            self._watch(found.line)

    def _outputs(self) -> Iterator[SharedOutput]:
        asked, opened = self.asked, self.opened
        spool = Spool(opened.stdout, self.page, Slot.STDOUT_FREED, Slot.STDOUT_TAKEN)
        yield SharedOutput("stdout", spool, asked.spool_bytes, asked.drop_oldest, self.wake)
        if opened.stderr is not None:
            spool = Spool(opened.stderr, self.page, Slot.STDERR_FREED, Slot.STDERR_TAKEN)
            yield SharedOutput("stderr", spool, asked.spool_bytes, asked.drop_oldest, self.wake)

    def end(self) -> ProcessEnd | None:
        """How it ended, once all its output is in the files."""
        return self.page.end()

    # -- news

    def _watch(self, line: Line) -> None:
        loop = asyncio.get_running_loop()
        self.acquire()
        loop.add_reader(line.news, self._news)
        loop.add_reader(line.supervisor, self._supervisor_ended)

    def _news(self) -> None:
        if self._line is not None:
            os.eventfd_read(self._line.news)
        if self.page.phase is Phase.DONE:
            self._hang_up()
        self.tell()

    def _supervisor_ended(self) -> None:
        if self.page.phase is not Phase.DONE:
            sizes = {stream: output.spool.size for stream, output in self.outputs.items()}
            end_left_behind(self.page)
            self.page.end_killed(sizes["stdout"], sizes.get("stderr", 0), time.time_ns())
        self._hang_up()
        self.tell()

    def _hang_up(self) -> None:
        if self._line is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._line.news)
        loop.remove_reader(self._line.supervisor)
        self._line.close()
        self._line = None
        # Whoever is told now still uses it.
        loop.call_soon(self.release)

    def tell(self) -> None:
        """Something has changed: everybody who watches looks."""
        for watcher in tuple(self._watchers):
            watcher()

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call this at every change, until `unwatch`."""
        self._watchers.add(watcher)

    def unwatch(self, watcher: Callable[[], None]) -> None:
        """See `watch`."""
        self._watchers.discard(watcher)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so, or the process has ended."""
        changed = asyncio.Event()
        self.watch(changed.set)
        try:
            while not condition() and self.end() is None:
                await changed.wait()
                changed.clear()
        finally:
            self.unwatch(changed.set)

    def wake(self) -> None:
        """Make the supervisor look at the page and at the input."""
        if self._line is not None:
            os.eventfd_write(self._line.wake, 1)

    # -- use

    def acquire(self) -> None:
        """One more user."""
        self._users += 1

    def release(self) -> None:
        """One user less; after the last one, who is told of it closes it."""
        self._users -= 1
        if self._users == 0:
            self.on_unused()

    def close(self) -> None:
        """Close the files; once, when it is unused."""
        self.opened.close()
        self.page.close()

    def let_go(self) -> None:
        """The daemon ends: close what is ours, the process lives on. Idempotent."""
        self._hang_up()


@dataclass(frozen=True)
class Found:
    """What a process is held by. line None: its supervisor has ended."""

    files: ExecFiles
    asked: Asked
    opened: OpenFiles
    page: StatePage
    line: Line | None


def reach(files: ExecFiles, page: StatePage) -> Line | None:
    """The fds of a supervisor that an earlier daemon has started; None if it has ended. Blocks.

    Its pid is taken while it still holds the lock: it cannot be another's by then.
    """
    deadline = time.monotonic() + SUPERVISOR_PATIENCE_S
    while page.phase is not Phase.DONE and time.monotonic() < deadline:
        pid = page[Slot.SUPERVISOR_PID]
        if pid and (line := _take(pid, files)) is not None:
            return line
        if not files.supervised():
            return None
        time.sleep(_PAUSE_S)  # it was started just now, or is about to end
    return None


def _take(pid: int, files: ExecFiles) -> Line | None:
    with Undo() as undo:
        try:
            pidfd = pidfd_open(pid)
            undo.add("the supervisor's pidfd", os.close, pidfd)
            if not files.supervised():
                return None
            wake = pidfd_getfd(pidfd, Fd.WAKE)
            undo.add("the eventfd", os.close, wake)
            news = pidfd_getfd(pidfd, Fd.NEWS)
        except OSError as failure:
            if failure.errno not in _ENDS_NOW:
                raise
            return None
        undo.pop_all()
    return Line(pidfd, wake, news)


def found(files: ExecFiles) -> Found:
    """What a held process is made of, from the disk. Raises NotFound. Blocks."""
    with Undo() as undo:
        asked = files.asked()
        opened = files.open()
        undo.add("the spool files", opened.close)
        page = files.page()
        undo.add("the state page", page.close)
        line = reach(files, page)
        if line is None and page.phase is not Phase.DONE:
            files.page().close()  # its supervisor was killed just now: the same page now says so
        undo.pop_all()
    return Found(files, asked, opened, page, line)
