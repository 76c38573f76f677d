"""The two ends of a channel: the battery's program run in a container, or as a plain process of the host.

What they say is in `tests/isolation/native/main.c`; who meets whom, and what that means, in `tests.isolation.crossing`.
"""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

from sysproc_client import Container

INSIDE = "/battery"


class Silent(AssertionError):
    """An end has ended without saying what it should."""


class Stream(Protocol):
    """A running program: its lines, and one way to tell it to go on."""

    def lines(self) -> Iterator[str]: ...
    def poke(self) -> None: ...
    def close(self) -> None: ...


@dataclass
class End:
    """One end that runs: everything that it has said, by its first word."""

    stream: Stream
    said: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lines = self.stream.lines()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def listen(self, until: str = "") -> bool:
        """Read on up to this word; whether it came, or what it ended with."""
        for line in self._lines:
            word, _, rest = line.partition(" ")
            self.said.append((word, rest))
            if word == until:
                return True
        return False

    def go_on(self) -> None:
        """Let it go on, and read to its end."""
        self.stream.poke()
        self.listen()

    def all(self, word: str) -> list[str]:
        """What it said after this word."""
        return [rest for first, rest in self.said if first == word]


class Place(Protocol):
    """Where an end can run."""

    def start(self, words: Sequence[str]) -> End: ...
    def host_pid(self, pid: int) -> int: ...


class InContainer:
    """In a container, as its root, through Exec."""

    def __init__(self, box: Container) -> None:
        self.box = box

    def start(self, words: Sequence[str]) -> End:
        """Start the program with these words."""
        return End(_ExecStream(self.box, words))

    def host_pid(self, pid: int) -> int:
        """What the host calls a process of the container."""
        return int(next((one.host_pid for one in self.box.ps() if one.pid == pid), 0))


class OnHost:
    """On the host, as its root."""

    def __init__(self, program: Path) -> None:
        self._program = program

    def start(self, words: Sequence[str]) -> End:
        """Start the program with these words."""
        return End(_HostStream([str(self._program), *words]))

    def host_pid(self, pid: int) -> int:
        """It is the same."""
        return pid


class _ExecStream:
    def __init__(self, box: Container, words: Sequence[str]) -> None:
        self._process = box.exec([INSIDE, *words], stdin=True)

    def lines(self) -> Iterator[str]:
        rest = b""
        for chunk in self._process:
            *whole, rest = (rest + chunk.data).split(b"\n")
            yield from (line.decode(errors="replace") for line in whole)

    def poke(self) -> None:
        if self._process.ended is None:
            self._process.stdin.write(b"\n")

    def close(self) -> None:
        self._process.__exit__(None)


class _HostStream:
    def __init__(self, command: Sequence[str]) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd="/", start_new_session=True)

    def lines(self) -> Iterator[str]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield line.decode(errors="replace").rstrip("\n")

    def poke(self) -> None:
        if self._process.poll() is None and self._process.stdin is not None:
            with suppress(BrokenPipeError):  # it has ended just now
                self._process.stdin.write(b"\n")
                self._process.stdin.flush()

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()
