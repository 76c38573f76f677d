"""The directory of one exec'd process: what is kept of it, whoever dies.

    execs/<exec id>/              its mkdir claims the id
        wanted                    what was asked for (JSON)
        state                     the state page; flock'ed by the supervisor as long as it lives
        stdout, stderr, stdin     spool files; without stderr for a terminal, without stdin for /dev/null

    mkdir -> wanted -> files -> state, locked -> supervisor        a directory without a state page, or with a page
                                                                   that is NEW and not locked, was never started

Only making, opening, listing and removing belongs here. What the state page says is in
`sysproc.isolation.exec_state`; who reads and writes the files meanwhile is in `sysproc.exec_held`, how much of them
stays after the end in `sysproc.exec_kept`.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from sysproc.errors import AlreadyExists, NotFound
from sysproc.exec_left_behind import end_left_behind
from sysproc.isolation.exec_state import Phase, Slot, StatePage
from sysproc.undo import Undo

_NAMES = ("wanted", "state", "stdout", "stderr", "stdin")
_FILE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class Asked(msgspec.Struct, frozen=True):
    """What is remembered of the request."""

    argv: tuple[bytes, ...]
    directory: bytes
    terminal: bool
    stdin: bool
    spool_bytes: int
    drop_oldest: bool
    asked_at: float


@dataclass(frozen=True)
class OpenFiles:
    """The fds of one exec's files; None where it has no such file."""

    stdout: int
    stderr: int | None
    stdin: int | None

    def close(self) -> None:
        """Close them; call it once."""
        for fd in (self.stdout, self.stderr, self.stdin):
            if fd is not None:
                os.close(fd)


class ExecFiles:
    """One exec's directory, by its path. All methods block."""

    def __init__(self, path: Path) -> None:
        # The text too: joining paths is a tenth of what a start takes.
        self.path, self._directory = path, os.fspath(path)

    @property
    def exec_id(self) -> str:
        """The name that the directory has."""
        return self.path.name

    def _name(self, name: str) -> str:
        return f"{self._directory}/{name}"

    # -- making

    def claim(self, asked: Asked) -> None:
        """Take the id. Raises AlreadyExists."""
        try:
            os.mkdir(self.path, mode=0o700)
        except FileExistsError:
            raise already_exists(self.exec_id) from None
        with Undo() as undo:
            undo.add("the directory of the process", self.remove)
            fd = os.open(self._name("wanted"), _FILE_FLAGS, 0o600)
            with os.fdopen(fd, "wb") as wanted:
                wanted.write(msgspec.json.encode(asked))
            undo.pop_all()

    def make(self, asked: Asked) -> OpenFiles:
        """The empty spool files."""
        with Undo() as undo:

            def new(name: str) -> int:
                fd = os.open(self._name(name), _FILE_FLAGS, 0o600)
                undo.add(name, os.close, fd)
                return fd

            files = OpenFiles(
                stdout=new("stdout"),
                stderr=None if asked.terminal else new("stderr"),
                stdin=new("stdin") if asked.stdin or asked.terminal else None,
            )
            undo.pop_all()
        return files

    def make_state(self) -> int:
        """The state page, locked: the lock goes on with the fd that the supervisor gets. Returns the fd."""
        fd = StatePage.create(self._name("state"))
        try:
            # Waits: `supervised` of another thread may hold it for a moment, as soon as the file is there.
            fcntl.flock(fd, fcntl.LOCK_EX)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def remove(self) -> None:
        """Remove everything; nothing happens if it is not there."""
        for name in _NAMES:
            with suppress(FileNotFoundError):
                os.unlink(self._name(name))
        with suppress(FileNotFoundError):
            os.rmdir(self.path)

    # -- opening

    def asked(self) -> Asked:
        """What was asked for. Raises NotFound."""
        try:
            return msgspec.json.decode((self.path / "wanted").read_bytes(), type=Asked)
        except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
            raise not_found(self.exec_id) from None

    def open(self) -> OpenFiles:
        """The spool files again. Raises NotFound."""
        try:
            stdout = os.open(self._name("stdout"), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise not_found(self.exec_id) from None
        return OpenFiles(stdout, self._open_if_there("stderr"), self._open_if_there("stdin"))

    def _open_if_there(self, name: str) -> int | None:
        try:
            return os.open(self._name(name), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None

    def page(self) -> StatePage:
        """The state page as it should be: of a supervisor that was killed, with the end that it could not write.

        Raises NotFound, also for one that was never started.
        """
        try:
            page = StatePage.open(self._name("state"))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            raise not_found(self.exec_id) from None
        # Asked again: the supervisor may have come to its end in between.
        if page[Slot.PHASE] == Phase.DONE or self.supervised() or page[Slot.PHASE] == Phase.DONE:
            return page
        if page.phase is Phase.NEW and not page[Slot.PID]:
            page.close()
            raise not_found(self.exec_id)
        end_left_behind(page)
        page.end_killed(self._size("stdout"), self._size("stderr"), time.time_ns())
        return page

    def supervised(self) -> bool:
        """Whether a supervisor holds the state page: it lives, or is just about to."""
        try:
            fd = os.open(self._name("state"), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def _size(self, name: str) -> int:
        try:
            return (self.path / name).stat().st_size
        except FileNotFoundError:
            return 0


def all_in(directory: Path) -> list[ExecFiles]:
    """Every exec below a container's directory for them, in no order."""
    try:
        return [ExecFiles(Path(entry.path)) for entry in os.scandir(directory)]
    except FileNotFoundError:
        return []


def remove_unstarted(directory: Path) -> None:
    """Remove what a start has left that was cut off before there was a supervisor. Only while nothing is started."""
    for files in all_in(directory):
        with closed_page(files) as page:
            there = page is not None
        if not there:
            files.remove()


@contextmanager
def closed_page(files: ExecFiles) -> Iterator[StatePage | None]:
    """A look at the state page; None if there is none."""
    try:
        page = files.page()
    except NotFound:
        yield None
        return
    try:
        yield page
    finally:
        page.close()


def already_exists(exec_id: str) -> AlreadyExists:
    """The error for an id that is taken."""
    return AlreadyExists(
        f"There is a process {exec_id} in this container already.",
        resolution="Attach to it, or choose another exec_id; a UUID is good.",
        reason="EXEC_EXISTS",
        metadata={"exec_id": exec_id},
    )


def not_found(exec_id: str) -> NotFound:
    """The error for an id that is not there (any more)."""
    return NotFound(
        f"There is no process {exec_id} in this container.",
        resolution="`ListExecs` shows those that are kept: all that run, and the newest that have ended.",
        reason="EXEC_NOT_FOUND",
        metadata={"exec_id": exec_id},
    )
