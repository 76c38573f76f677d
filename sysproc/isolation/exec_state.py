"""The state page of an exec'd process: 4096 bytes of a file that its supervisor and the daemon have both mapped.

    NEW ──▶ RUNNING ──the process ended──▶ ENDED ──its output is in the files──▶ DONE
      └──────────── it could not be started ──────────────────────────────────────▶

Slots of 64 bits, each written by one side only: the supervisor's from 0 on (when it has ended, by the daemon in its
place), the daemon's from 64 on. Whoever writes pokes the other's eventfd afterwards. The other side is `exec.h` in
`sysproc.isolation.native`; what is written into the files beside it, and who waits for what, is in
`sysproc.isolation.spool` and `sysproc.exec_held`.
"""

import mmap
import os
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from signal import SIGKILL
from typing import Self

STATE_BYTES = 4096
PATH_TEXT = 2048
INTERPRETER_TEXT = 3072
TEXT_BYTES = 1024
SIGNAL_RING = 16


class Phase(IntEnum):
    """How far it is; see the module's docstring."""

    NEW = 0
    RUNNING = 1
    ENDED = 2
    DONE = 3


class ExitKind(IntEnum):
    """What the number of the exit status is."""

    NONE = 0
    CODE = 1
    SIGNAL = 2


class Step(IntEnum):
    """What failed before the process could begin."""

    NONE = 0
    SPEC = 1
    PIPES = 2
    ENTER_PIDS = 3
    CLONE = 4
    CGROUP = 5
    LIMITS = 6
    NAMESPACES = 7
    TERMINAL = 8
    STDIO = 9
    USER = 10
    SECCOMP = 11
    DIRECTORY = 12
    EXECVE = 13


class Slot(IntEnum):
    """The places of the numbers, in units of 64 bits."""

    PHASE = 0
    SUPERVISOR_PID = 1
    PID = 2
    PID_START = 3
    PID_INSIDE = 4
    STARTED_NS = 5
    ENDED_NS = 6
    EXIT_KIND = 7
    EXIT_NUMBER = 8
    FAILED_STEP = 9
    FAILED_ERRNO = 10
    FAILED_MACHINE = 11
    STDOUT_FREED = 12
    STDERR_FREED = 13
    STDOUT_SIZE = 14
    STDERR_SIZE = 15
    STDIN_CONSUMED = 16
    STDIN_BROKEN = 17
    TROUBLE = 18
    SIGNALS_DONE = 19
    STDOUT_TAKEN = 64
    STDERR_TAKEN = 65
    STDIN_CLOSED = 66
    WINDOW = 67
    SIGNALS_ASKED = 68
    SIGNAL_RING = 69


@dataclass(frozen=True)
class Failure:
    """Why a process could not begin. machine: e_machine of the program (elf(5)), if it is for another processor."""

    step: Step
    errno: int
    path: bytes
    interpreter: bytes
    machine: int | None


@dataclass(frozen=True)
class ProcessEnd:
    """How it ended: exactly one of code and signal is there; sizes in bytes, of all that it wrote."""

    code: int | None
    signal: int | None
    stdout_size: int
    stderr_size: int
    ended_ns: int
    failure: Failure | None


class StatePage:
    """The page of one exec; close() unmaps it. Every read is of the present moment."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, STATE_BYTES)
        # Native 64-bit items of a cast view are read and written whole, unlike those of struct.pack_into.
        self._slots = memoryview(self._map).cast("Q")

    @classmethod
    def create(cls, path: str | Path) -> int:
        """A new file of a page of zeros; returns its fd, which is to be locked. The blocks are reserved: a full
        disk shows here, not as SIGBUS later."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, STATE_BYTES)
            os.pwrite(fd, bytes(STATE_BYTES), 0)
        except BaseException:
            os.close(fd)
            raise
        return fd

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Map the page of an existing file; FileNotFoundError, or ValueError if it is too short."""
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            return cls(fd)
        finally:
            os.close(fd)

    def __getitem__(self, slot: Slot) -> int:
        return self._slots[slot]

    @property
    def phase(self) -> Phase:
        """How far it is."""
        return Phase(self[Slot.PHASE])

    def failure(self) -> Failure | None:
        """Why it could not begin, or None if it did (or has not yet)."""
        if not self[Slot.FAILED_STEP]:
            return None
        return Failure(
            step=Step(self[Slot.FAILED_STEP]),
            errno=self[Slot.FAILED_ERRNO],
            path=self._text(PATH_TEXT),
            interpreter=self._text(INTERPRETER_TEXT),
            machine=self[Slot.FAILED_MACHINE] - 1 if self[Slot.FAILED_MACHINE] else None,
        )

    def end(self) -> ProcessEnd | None:
        """How it ended, once all its output is in the files; before that None."""
        if self.phase is not Phase.DONE:
            return None
        number, kind = self[Slot.EXIT_NUMBER], ExitKind(self[Slot.EXIT_KIND])
        return ProcessEnd(
            code=number if kind is ExitKind.CODE else None,
            signal=number if kind is ExitKind.SIGNAL else None,
            stdout_size=self[Slot.STDOUT_SIZE],
            stderr_size=self[Slot.STDERR_SIZE],
            ended_ns=self[Slot.ENDED_NS],
            failure=self.failure(),
        )

    def _text(self, at: int) -> bytes:
        return bytes(self._map[at : at + TEXT_BYTES]).split(b"\0", 1)[0]

    # -- the daemon's slots

    def set_taken(self, stream: Slot, offset: int) -> None:
        """Readers have what is before this offset; it never goes back. `stream`: STDOUT_TAKEN or STDERR_TAKEN."""
        self._slots[stream] = max(offset, self._slots[stream])

    def close_stdin(self) -> None:
        """What is in the stdin file now is all there will be."""
        self._slots[Slot.STDIN_CLOSED] = 1

    def set_window(self, rows: int, columns: int) -> None:
        """Ask for another size of the terminal; the generation makes a repetition of the same size seen."""
        generation = (self._slots[Slot.WINDOW] >> 32) + 1
        self._slots[Slot.WINDOW] = (generation & 0xFFFFFFFF) << 32 | rows << 16 | columns

    def ask_signal(self, number: int) -> bool:
        """Ask for a signal; False if so many are outstanding already that it has to wait."""
        asked = self._slots[Slot.SIGNALS_ASKED]
        if asked - self._slots[Slot.SIGNALS_DONE] >= SIGNAL_RING:
            return False
        self._slots[Slot.SIGNAL_RING + asked % SIGNAL_RING] = (asked + 1) << 8 | number
        self._slots[Slot.SIGNALS_ASKED] = asked + 1
        return True

    # -- in place of a supervisor that has ended

    def set_freed(self, stream: Slot, offset: int) -> None:
        """What is before this offset is not kept any more. `stream`: STDOUT_FREED or STDERR_FREED; from DONE on."""
        self._slots[stream] = max(offset, self._slots[stream])

    def end_killed(self, stdout_size: int, stderr_size: int, now_ns: int) -> None:
        """The supervisor is gone, and with it the process (PR_SET_PDEATHSIG): write what it could not.

        Only for a page whose file nobody has locked, or whose supervisor's pidfd says that it has ended.
        """
        if self.phase is not Phase.ENDED:
            self._slots[Slot.EXIT_NUMBER] = SIGKILL
            self._slots[Slot.EXIT_KIND] = ExitKind.SIGNAL
            self._slots[Slot.ENDED_NS] = now_ns
        self._slots[Slot.STDOUT_SIZE], self._slots[Slot.STDERR_SIZE] = stdout_size, stderr_size
        self._slots[Slot.STDIN_BROKEN] = 1
        self._slots[Slot.PHASE] = Phase.DONE

    def close(self) -> None:
        """Unmap; idempotent."""
        self._slots.release()
        self._map.close()
