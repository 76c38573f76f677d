"""What a program writes to a terminal, and when; as a file of asciinema, version 2.

The format: https://docs.asciinema.org/manual/asciicast/v2/. How it is drawn is in `docs.cast.drawing`.
"""

import codecs
import fcntl
import json
import os
import pty
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

COLUMNS, ROWS = 114, 32
# Pauses that are longer are shown as long as this.
LONGEST_PAUSE_S = 1.5
# The demo waits so long after each command, for who reads along.
DEMO_PAUSE_S = 0.6


@dataclass(frozen=True)
class Cast:
    """A recording: seconds since its beginning, and what was written then."""

    title: str
    events: tuple[tuple[float, str], ...]
    columns: int = COLUMNS
    rows: int = ROWS

    def as_text(self) -> str:
        """As asciinema reads it."""
        header = {
            "version": 2,
            "width": self.columns,
            "height": self.rows,
            "title": self.title,
            "env": {"TERM": "xterm-256color", "SHELL": "/bin/bash"},
        }
        lines = [header, *([round(at, 3), "o", text] for at, text in self.events)]
        return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)


def of_text(text: str) -> Cast:
    """The recording that a file holds. Raises ValueError if it is not of version 2."""
    header, *lines = (json.loads(line) for line in text.splitlines())
    if header["version"] != 2:
        raise ValueError("no asciinema v2")
    events = tuple((float(at), str(data)) for at, code, data in lines if code == "o")
    return Cast(header["title"], events, header["width"], header["height"])


def record(command: Sequence[str], *, title: str) -> tuple[Cast, int]:
    """Run a command on a terminal of its own; its recording, and how it has ended."""
    with ExitStack() as stack:
        master, slave = pty.openpty()
        stack.callback(os.close, master)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", "DEMO_PAUSE": str(DEMO_PAUSE_S)}
        environment.pop("NO_COLOR", None)
        try:
            process = subprocess.Popen(
                command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
            )
        finally:
            os.close(slave)
        events = tuple(shortened(read(master)))
        return Cast(title, events), process.wait()


def read(terminal: int) -> Iterator[tuple[float, str]]:
    """What is written to it, until nobody has it open."""
    decoder, begun = codecs.getincrementaldecoder("utf-8")(), time.monotonic()
    while True:
        try:
            data = os.read(terminal, 1 << 16)
        except OSError:  # EIO: the last of the other end was closed
            return
        if text := decoder.decode(data):
            yield time.monotonic() - begun, text


def shortened(events: Iterator[tuple[float, str]]) -> Iterator[tuple[float, str]]:
    """The same with no pause longer than the longest."""
    before = cut = 0.0
    for at, text in events:
        cut += max(0.0, at - before - LONGEST_PAUSE_S)
        before = at
        yield at - cut, text
