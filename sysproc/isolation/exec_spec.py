"""What the supervisor of an exec'd process is told: the spec, as bytes in a memfd, and the numbers of its fds.

    14 words of 32 bits (Word), in the byte order of the machine
    limits  × resource, soft, hard: 64 bits each
    filter  × instruction: 8 bytes
    strings, each ended by NUL: argv…, environment…, tasks…, working directory, cgroup

The other side is `exec.h` in `sysproc.isolation.native`; tests hold the two together. What the supervisor
publishes is in `sysproc.isolation.exec_state`; how a request becomes a spec is the business of `sysproc.processes`.
"""

import os
import resource
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

MAGIC = 0x31505853


class Fd(IntEnum):
    """The numbers at which the supervisor finds its fds."""

    SPEC = 3
    STATE = 4
    STDOUT = 5
    STDERR = 6
    STDIN = 7
    WAKE = 8
    NEWS = 9
    INIT = 10


class Word(IntEnum):
    """The places of the words at the beginning."""

    MAGIC = 0
    SIZE = 1
    FLAGS = 2
    UID = 3
    GID = 4
    HOST_UID = 5
    WINDOW = 6
    SPOOL_BYTES = 7
    LIMITS = 8
    FILTER = 9
    ARGV = 10
    ENVIRONMENT = 11
    TASKS = 12
    STRING_BYTES = 13


class Flag(IntFlag):
    """What kind of exec it is."""

    TERMINAL = 1
    STDIN = 2
    GID = 4
    DROP_OLDEST = 8


@dataclass(frozen=True)
class Window:
    """The size of a terminal in characters."""

    rows: int
    columns: int

    def word(self) -> int:
        """As one number of 32 bits."""
        return self.rows << 16 | self.columns


# Those that Python's `resource` lacks (asm-generic/resource.h).
NUMBERS = {"LOCKS": 10, "RTTIME": 15}


def default_limits() -> Mapping[int, tuple[int, int]]:
    """What processes in containers begin with: systemd's values for services, without core files.

    Everything else is not limited by rlimits: memory and processes are held by the container's cgroups.
    """
    none = resource.RLIM_INFINITY
    stated = {
        resource.RLIMIT_NOFILE: (1024, 524288),
        resource.RLIMIT_CORE: (0, none),
        resource.RLIMIT_STACK: (8 << 20, none),
        resource.RLIMIT_MEMLOCK: (8 << 20, 8 << 20),
        resource.RLIMIT_MSGQUEUE: (819200, 819200),
        resource.RLIMIT_SIGPENDING: (16384, 16384),
        resource.RLIMIT_NICE: (0, 0),
        resource.RLIMIT_RTPRIO: (0, 0),
    }
    unlimited = ("AS", "CPU", "DATA", "FSIZE", "LOCKS", "NPROC", "RSS", "RTTIME")
    return {**{NUMBERS.get(name) or getattr(resource, f"RLIMIT_{name}"): (none, none) for name in unlimited}, **stated}


@dataclass(frozen=True)
class ExecSpec:
    """One process to start. Ids are the container's, except `host_uid`: the same user as the host sees it.

    argv, environment (`NAME=value`), working_directory, paths: bytes without NUL; argv is not empty.
    gid None: the user's group in the container's /etc/passwd, else the number of the uid.
    window: with a terminal of this size. None: pipes; without `stdin` the input is /dev/null then.
    tasks: the `tasks` files of the container's cgroups of version 1. cgroup: its directory of version 2, if any.
    spool_bytes: how much of each output is kept that readers have not taken.
    """

    argv: Sequence[bytes]
    environment: Sequence[bytes]
    working_directory: bytes
    uid: int
    gid: int | None
    host_uid: int
    window: Window | None
    stdin: bool
    spool_bytes: int
    drop_oldest: bool
    seccomp_filter: bytes
    tasks: Sequence[bytes]
    cgroup: bytes | None
    limits: Mapping[int, tuple[int, int]] = field(default_factory=default_limits)

    def encode(self) -> bytes:
        """The bytes for the memfd; ValueError for NUL in a string, at which the other side would cut."""
        strings = self._strings()
        limits = b"".join(struct.pack("=3Q", name, *map(unsigned, pair)) for name, pair in self.limits.items())
        size = 4 * len(Word) + len(limits) + len(self.seccomp_filter) + len(strings)
        words = {
            Word.MAGIC: MAGIC,
            Word.SIZE: size,
            Word.FLAGS: self._flags(),
            Word.UID: self.uid,
            Word.GID: self.gid or 0,
            Word.HOST_UID: self.host_uid,
            Word.WINDOW: self.window.word() if self.window else 0,
            Word.SPOOL_BYTES: self.spool_bytes,
            Word.LIMITS: len(self.limits),
            Word.FILTER: len(self.seccomp_filter) // 8,
            Word.ARGV: len(self.argv),
            Word.ENVIRONMENT: len(self.environment),
            Word.TASKS: len(self.tasks),
            Word.STRING_BYTES: len(strings),
        }
        head = struct.pack(f"={len(Word)}I", *(words[word] for word in Word))
        return head + limits + self.seccomp_filter + strings

    def _strings(self) -> bytes:
        strings = (*self.argv, *self.environment, *self.tasks, self.working_directory, self.cgroup or b"")
        if any(b"\0" in string for string in strings):
            raise ValueError("NUL in an argument, a variable or a path")
        return b"".join(string + b"\0" for string in strings)

    def _flags(self) -> Flag:
        flags = Flag.TERMINAL if self.window else Flag.STDIN if self.stdin else Flag(0)
        flags |= Flag.GID if self.gid is not None else Flag(0)
        return flags | (Flag.DROP_OLDEST if self.drop_oldest else Flag(0))

    def to_memfd(self) -> int:
        """The spec in a memfd, for Fd.SPEC. It may hold secrets, and is gone with its last fd."""
        fd = os.memfd_create("sysproc-exec", os.MFD_CLOEXEC)
        try:
            rest = memoryview(self.encode())
            while rest:
                rest = rest[os.write(fd, rest) :]
        except BaseException:
            os.close(fd)
            raise
        return fd


def unsigned(limit: int) -> int:
    """RLIM_INFINITY is -1 in Python and all ones in the kernel."""
    return limit & (1 << 64) - 1
