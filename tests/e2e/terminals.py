"""A program on a terminal of its own, typed to and looked at as a person would. What it does is in the tests."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from tests.waiting import PATIENCE_S

# `setsid --ctty`: the terminal is the program's own, so that its keys make signals.
OF_ITS_OWN = ("setsid", "--ctty", "--wait")


class Terminal:
    """A context manager that kills the program, if it still runs, and closes the terminal."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        size: tuple[int, int] = (24, 80),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._ours, self.theirs = pty.openpty()
        self.resize(*size)
        self.shown = b""
        self._seen = 0
        streams: Any = dict.fromkeys(("stdin", "stdout", "stderr"), self.theirs)
        environ = {**os.environ, "TERM": "xterm", **(environment or {})}
        self.process = subprocess.Popen([*OF_ITS_OWN, *command], **streams, env=environ)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        os.close(self._ours)
        os.close(self.theirs)
        self.process.kill()
        self.process.wait()

    def resize(self, rows: int, columns: int) -> None:
        """The window has another size."""
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def type(self, text: str | bytes) -> None:
        """Keys."""
        os.write(self._ours, text.encode() if isinstance(text, str) else text)

    def see(self, text: str | bytes) -> bytes:
        """Wait until this is shown, after what was seen last; everything from there to its end."""
        wanted = text.encode() if isinstance(text, str) else text
        deadline = time.monotonic() + PATIENCE_S
        while (at := self.shown.find(wanted, self._seen)) < 0:
            if time.monotonic() > deadline:
                raise AssertionError(f"{wanted!r} was not shown, but {self.shown[self._seen :]!r}")
            if select.select([self._ours], [], [], 0.1)[0]:
                self.shown += os.read(self._ours, 1 << 16)
        seen, self._seen = self.shown[self._seen : at + len(wanted)], at + len(wanted)
        return seen

    def settings(self) -> list[Any]:
        """As tcgetattr(3) has them."""
        return termios.tcgetattr(self.theirs)

    def ends(self) -> int:
        """Wait for its end; its exit code."""
        return self.process.wait(PATIENCE_S)

    def signal(self, pid: int, number: signal.Signals) -> None:
        """To a process of it."""
        os.kill(pid, number)
