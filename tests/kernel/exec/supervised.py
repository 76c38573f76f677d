"""The supervisor, started directly from a test: no launcher, no daemon, the test plays their part.

    with Supervised(box, tmp_path, [b"true"]) as exec_:  exec_.wait_end()

What it is told and what it publishes is in `sysproc.isolation.exec_spec` and `sysproc.isolation.exec_state`.
"""

import fcntl
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from sysproc.isolation.exec_spec import ExecSpec, Fd, Window
from sysproc.isolation.exec_state import Phase, ProcessEnd, Slot, StatePage
from sysproc.isolation.native import program_path

PATIENCE_S = 30.0
PATH = b"PATH=/bin"


@dataclass(frozen=True)
class Box:
    """Where processes are started: see `tests.kernel.exec.box`."""

    init_pid: int
    init_pidfd: int
    base: int


@dataclass(frozen=True)
class Wish:
    """The parts of a spec that tests vary."""

    environment: Sequence[bytes] = (PATH,)
    directory: bytes = b"/"
    uid: int = 0
    gid: int | None = None
    window: Window | None = None
    stdin: bool = False
    spool_bytes: int = 1 << 24
    drop_oldest: bool = False
    seccomp_filter: bytes = b""
    tasks: Sequence[bytes] = ()
    cgroup: bytes | None = None
    limits: dict[int, tuple[int, int]] = field(default_factory=dict)


class Supervised:
    """One process with its supervisor; the files are in `directory`."""

    def __init__(self, box: Box, directory: Path, argv: Sequence[bytes], wish: Wish | None = None) -> None:
        wish = wish or Wish()
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.spec = ExecSpec(
            argv=argv,
            environment=wish.environment,
            working_directory=wish.directory,
            uid=wish.uid,
            gid=wish.gid,
            host_uid=box.base + wish.uid,
            window=wish.window,
            stdin=wish.stdin,
            spool_bytes=wish.spool_bytes,
            drop_oldest=wish.drop_oldest,
            seccomp_filter=wish.seccomp_filter,
            tasks=wish.tasks,
            cgroup=wish.cgroup,
            limits=wish.limits,
        )
        self.wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.news = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        state = StatePage.create(directory / "state")
        self.page = StatePage(state)
        self.pid = self._spawn(state, box.init_pidfd)
        os.close(state)
        self.pidfd = os.pidfd_open(self.pid)

    def _spawn(self, state: int, init_pidfd: int) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        files = {fd: os.open(self.directory / fd.name.lower(), flags) for fd in (Fd.STDOUT, Fd.STDERR, Fd.STDIN)}
        fds = {**files, Fd.SPEC: self.spec.to_memfd(), Fd.STATE: state, Fd.WAKE: self.wake, Fd.NEWS: self.news}
        fds[Fd.INIT] = init_pidfd
        high = {number: os.dup(fd) for number, fd in fds.items()}
        lifted = {number: _lift(fd) for number, fd in high.items()}
        actions = [(os.POSIX_SPAWN_DUP2, fd, int(number)) for number, fd in lifted.items()]
        try:
            return os.posix_spawn(program_path(), ["sysproc: exec test", "exec"], {}, file_actions=actions)
        finally:
            for fd in (*lifted.values(), *files.values(), fds[Fd.SPEC]):
                os.close(fd)

    def poke(self) -> None:
        """Make the supervisor look."""
        os.eventfd_write(self.wake, 1)

    def until(self, condition: Callable[[], bool], what: str | Callable[[], str] = "it happens") -> None:
        """Wait for news until something is so."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(what if isinstance(what, str) else what())
            if select.select([self.news], [], [], 0.05)[0]:
                os.eventfd_read(self.news)

    def until_size(self, least: int, name: str = "stdout") -> None:
        """Wait until so much has ever been written, or until the end."""
        file = self.directory / name
        self.until(lambda: file.stat().st_size >= least or self.page.end() is not None, f"{least} bytes of {name}")

    def until_text(self, text: bytes) -> None:
        """Wait until the output contains it."""
        self.until(lambda: text in self.output(), lambda: f"{text!r} in {self.output()!r}")

    def until_slot(self, slot: Slot, value: int) -> None:
        """Wait until a number of the page is this."""
        self.until(lambda: self.page[slot] == value, f"{slot.name} is {value}")

    def again_until_text(self, act: Callable[[], object], text: bytes) -> None:
        """Do something now and again until the output contains the text."""

        def acted() -> bool:
            act()
            return text in self.output()

        self.until(acted, lambda: f"{text!r} in {self.output()!r}")

    def wait_end(self) -> ProcessEnd:
        """Wait until the process has ended and its output is in the files."""
        self.until(lambda: self.page.phase is Phase.DONE, "the end of the process")
        end = self.page.end()
        assert end is not None
        return end

    def wait_started(self) -> None:
        """Wait until execve has happened."""
        self.until(lambda: self.page.phase >= Phase.RUNNING)
        self.until(lambda: not self.comm().startswith("sysproc") or self.page.phase >= Phase.ENDED)

    def comm(self) -> str:
        """The name of the process, as the kernel has it; empty once it is gone."""
        try:
            return Path(f"/proc/{self.page[Slot.PID]}/comm").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):
            return ""

    def output(self, name: str = "stdout") -> bytes:
        """What is in a spool file, zeros for what was freed."""
        return (self.directory / name).read_bytes()

    def write_stdin(self, data: bytes) -> None:
        """Append to the input."""
        with (self.directory / "stdin").open("ab") as file:
            file.write(data)
        self.poke()

    def close_stdin(self) -> None:
        """No more input."""
        self.page.close_stdin()
        self.poke()

    def signal(self, number: int) -> None:
        """Ask for a signal."""
        assert self.page.ask_signal(number)
        self.poke()

    def take(self, offset: int, slot: Slot = Slot.STDOUT_TAKEN) -> None:
        """As a reader that has everything before the offset."""
        self.page.set_taken(slot, offset)
        self.poke()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End both processes, reap the supervisor, close all fds."""
        if self.page.phase is Phase.RUNNING and self.comm():
            self.page.ask_signal(signal.SIGKILL)
            self.poke()
            select.select([self.pidfd], [], [], 2)
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.page.close()
        for fd in (self.wake, self.news, self.pidfd):
            os.close(fd)


def _lift(fd: int) -> int:
    """Out of the way of the numbers that the supervisor's fds get."""
    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100)
    os.close(fd)
    return high
