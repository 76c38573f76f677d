"""The other end of the processes that are told secrets: what starts them, what they answer.

What they do, and the messages, are in `sysproc.storage.decrypted.process` and `sysproc.storage.decrypted.key_work`. The
file that the first gives is for a loop device (`sysproc.linux.loop`), with the sector size as its block size. The
service has them started by its launcher (`sysproc.unlocking`), so that they outlive it.
"""

import errno
import fcntl
import json
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sysproc import errors
from sysproc.errors import Internal, SysprocError
from sysproc.linux.loop import LO_FLAGS_AUTOCLEAR, LO_FLAGS_DIRECT_IO, loop_configure
from sysproc.linux.unix_sockets import FdSet, recv_with_fds
from sysproc.storage.decrypted.hardened import REPORT_FD, SECRET_FD, VOLUME_FD
from sysproc.storage.luks import refusals
from sysproc.storage.luks.region import Region

_HIGH_FD = 64
# mlockall locks what is touched; of malloc's arenas one is enough.
ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}
# How it is decrypted: by the process; `by_device` says the other way.
BY_PROCESS = "fuse"


@dataclass(frozen=True)
class Decrypted:
    """The open file or device with the decrypted data: whoever holds the fd, or uses it, keeps the volume open."""

    fd: int
    size: int
    sector_size: int
    slot: int
    pid: int

    def attach(self, *, flags: int = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO) -> tuple[int, str]:
        """A loop device on it: its fd and path. Direct, so that the decrypted data is cached once, above the loop."""
        return loop_configure(self.fd, offset=0, size=0, flags=flags, block_size=self.sector_size)


@dataclass(frozen=True)
class Manner:
    """How a volume is opened. mark: a byte of its file that is locked as long as it is open; direct: see `mapped`."""

    mark: int | None = None
    direct: bool = False

    def words(self) -> list[str]:
        """As the process reads them."""
        return [*([] if self.mark is None else [f"mark={self.mark}"]), *(["direct"] if self.direct else [])]


ANYHOW = Manner()


def opening(region: Region, way: str = BY_PROCESS, *, slot: int | None = None, manner: Manner = ANYHOW) -> list[str]:
    """The command line of a process that opens the volume in this area."""
    return _command("process", way, "open", *_place(region), *([] if slot is None else [str(slot)]), *manner.words())


def making(region: Region, way: str, label: str) -> list[str]:
    """Of one that makes it first; what was there is lost."""
    return _command("process", way, "make", *_place(region), *([label] if label else []))


def widening(region: Region) -> list[str]:
    """Of one that lets the device of dm-crypt over this area be as large as the area is by now."""
    return _command("process", by_device(), "widen", *_place(region))


def by_device(uuid: str = "") -> str:
    """The way of dm-crypt, where the kernel has it: what the device is called, if it is to be found again."""
    return f"auto:{uuid}"


def key_work(verb: str, regions: Sequence[Region], slot: int | None = None) -> list[str]:
    """Of one that changes keys: `add`, `change`, `remove`; or tries one: `check`."""
    places = [":".join(_place(region)) for region in regions]
    return _command("key_work", verb, *places, *([] if slot is None else [str(slot)]))


def _command(module: str, *arguments: str) -> list[str]:
    """No secret is among the arguments."""
    return [sys.executable, "-I", "-B", "-m", f"sysproc.storage.decrypted.{module}", *arguments]


def _place(region: Region) -> list[str]:
    return [str(region.offset), str(region.size)]


def start(region: Region, secret_fd: int, *, way: str = BY_PROCESS, slot: int | None = None) -> Decrypted:
    """Open the volume by what the secret's pipe or file holds up to its end. SysprocError, OSError: why not."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            pid = spawn(region, secret_fd, theirs.fileno(), way=way, slot=slot)
        message, fds = recv_with_fds(ours)
    with fds:
        try:
            return decrypted(message, fds)
        except (SysprocError, OSError):
            os.waitpid(pid, 0)
            raise


def spawn(region: Region, secret_fd: int, report_fd: int, *, way: str = BY_PROCESS, slot: int | None = None) -> int:
    """Start the process, of a session of its own; its pid. It has these fds and its errors, and ends if nobody listens.

    Who starts it must be single-threaded or spawn.
    """
    arguments = opening(region, way, slot=slot)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    # From above, so that no number is taken twice.
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH_FD) for fd in (region.fd, secret_fd, report_fd)]
    numbers = (0, 1, VOLUME_FD, SECRET_FD, REPORT_FD)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, *pair) for pair in zip((null, null, *high), numbers, strict=True)]
        return os.posix_spawn(arguments[0], arguments, ENVIRONMENT, file_actions=actions, setsid=True)
    finally:
        for fd in (null, *high):
            os.close(fd)


def decrypted(message: bytes, fds: FdSet) -> Decrypted:
    """What a process that opens a volume has reported. SysprocError, OSError: why it did not."""
    facts = reported(message)
    return Decrypted(fds.take(), facts["size"], facts["sector_size"], facts["slot"], facts["pid"])


def reported(message: bytes) -> dict[str, Any]:
    """What a process has reported; raises the failure as it was there, or that it was killed before it could tell."""
    facts: dict[str, Any] = json.loads(message or b'{"failed": null}')
    if "failed" in facts:
        raise _failure(facts["failed"])
    return facts


def _failure(told: dict[str, Any] | None) -> SysprocError | OSError:
    if told is None:
        return OSError(errno.ECHILD, "ended without a result", "the process of the volume")
    if "errno" in told:
        return OSError(told["errno"], told["strerror"], told["target"])
    known: dict[str, type[SysprocError]] = {**vars(errors), **vars(refusals)}
    texts = {name: told[name] for name in ("details", "resolution", "reason")}
    return known.get(told["class"], Internal)(told["brief"], **texts)
