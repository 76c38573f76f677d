"""Opening a volume where the kernel has no dm-crypt: starts its process, and takes the decrypted file from it.

What the process does, and the messages, are in `sysproc.storage.decrypted.process`. The file is for a loop device
(`sysproc.linux.loop`), with the sector size as its block size; who starts it must be single-threaded or spawn.
"""

import errno
import fcntl
import json
import os
import socket
import sys
from dataclasses import dataclass
from typing import Any

from sysproc import errors
from sysproc.errors import Internal, SysprocError
from sysproc.linux.loop import LO_FLAGS_AUTOCLEAR, LO_FLAGS_DIRECT_IO, loop_configure
from sysproc.linux.unix_sockets import recv_with_fds
from sysproc.storage.decrypted.process import REPORT_FD, SECRET_FD, VOLUME_FD
from sysproc.storage.luks import refusals
from sysproc.storage.luks.region import Region

_HIGH_FD = 64
# mlockall locks what is touched; of malloc's arenas one is enough.
_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}


@dataclass(frozen=True)
class Decrypted:
    """The open file with the decrypted data: whoever holds the fd, or a loop device on it, keeps the volume open."""

    fd: int
    size: int
    sector_size: int
    slot: int
    pid: int

    def attach(self, *, flags: int = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO) -> tuple[int, str]:
        """A loop device on it: its fd and path. Direct, so that the decrypted data is cached once, above the loop."""
        return loop_configure(self.fd, offset=0, size=0, flags=flags, block_size=self.sector_size)


def start(region: Region, secret_fd: int, *, slot: int | None = None) -> Decrypted:
    """Open the volume by what the secret's pipe or file holds up to its end. SysprocError, OSError: why not."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            pid = spawn(region, secret_fd, theirs.fileno(), slot=slot)
        message, fds = recv_with_fds(ours)
    with fds:
        facts = json.loads(message or b'{"failed": null}')
        if "failed" in facts:
            os.waitpid(pid, 0)
            raise _failure(facts["failed"])
        return Decrypted(fds.take(), facts["size"], facts["sector_size"], facts["slot"], facts["pid"])


def spawn(region: Region, secret_fd: int, report_fd: int, *, slot: int | None = None) -> int:
    """Start the process, of a session of its own; its pid. It has these fds and its errors, and ends if nobody listens.

    No secret is among its arguments.
    """
    place = [str(region.offset), str(region.size), *([] if slot is None else [str(slot)])]
    arguments = [sys.executable, "-I", "-B", "-m", "sysproc.storage.decrypted.process", *place]
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    # From above, so that no number is taken twice.
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH_FD) for fd in (region.fd, secret_fd, report_fd)]
    try:
        numbers = (0, 1, VOLUME_FD, SECRET_FD, REPORT_FD)
        actions = [(os.POSIX_SPAWN_DUP2, *pair) for pair in zip((null, null, *high), numbers, strict=True)]
        return os.posix_spawn(arguments[0], arguments, _ENVIRONMENT, file_actions=actions, setsid=True)
    finally:
        for fd in (null, *high):
            os.close(fd)


def _failure(told: dict[str, Any] | None) -> SysprocError | OSError:
    """The failure as it was in the process, which may have been killed before it could tell."""
    if told is None:
        return OSError(errno.ECHILD, "ended without a result", "the process of the volume")
    if "errno" in told:
        return OSError(told["errno"], told["strerror"], told["target"])
    known: dict[str, type[SysprocError]] = {**vars(errors), **vars(refusals)}
    texts = {name: told[name] for name in ("details", "resolution", "reason")}
    return known.get(told["class"], Internal)(told["brief"], **texts)
