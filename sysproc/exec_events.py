"""What whoever is attached to an exec'd process is told, in this order: Started, then any of the others, Exited last.

Plain values; their messages are in `proto/`, what makes them in `sysproc.exec_handle`.
"""

from dataclasses import dataclass
from typing import Literal

Stream = Literal["stdout", "stderr"]


@dataclass(frozen=True)
class Started:
    """It is there; the first offsets that are kept, where input goes on, and the bound of each output in bytes."""

    exec_id: str
    stdout_offset: int
    stderr_offset: int
    stdin_offset: int
    spool_bytes: int


@dataclass(frozen=True)
class Output:
    """Consecutive bytes of one stream."""

    stream: Stream
    offset: int
    data: bytes


@dataclass(frozen=True)
class StdinAccepted:
    """Input before this offset is kept, and will not be asked for again."""

    offset: int


@dataclass(frozen=True)
class Exited:
    """It has ended: exactly one of code and signal is there. failure: why it could not be started, or empty."""

    code: int | None
    signal: int | None
    stdout_size: int
    stderr_size: int
    failure: str
    ended_at: float


Event = Started | Output | StdinAccepted | Exited


@dataclass(frozen=True)
class ExecInfo:
    """One exec, for a list. pid: inside, None once it has ended; times in seconds since 1970."""

    exec_id: str
    argv: tuple[bytes, ...]
    terminal: bool
    started_at: float
    pid: int | None
    exited: Exited | None
