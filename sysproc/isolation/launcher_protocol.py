"""The messages between `sysprocd` and its launcher, and between the daemon and what the launcher forks.

    sysprocd                                   launcher (single-threaded, one poll loop)
      HELLO n ────────────────────────────────▶
      ◀──────────────────────────── OK n pid digest     another digest: QUIT it, start one of today's code
      BUILD n spec  + vsf status report ───────▶ fork B (sysproc.isolation.builder draws the rest)
      ◀──────────────────────────── OK n pid
      ◀═══════ on `report`: {"built": …} + fds │ {"failed": …} │ EOF: B was killed
      JOB n name values  + report fds… ────────▶ fork (sysproc.isolation.jobs)
      ◀──────────────────────────── OK n pid
      ◀═══════ on `report`: {"progress": …} * , then {"result": …} │ {"failed": …} │ EOF: killed
      EXEC n argv numbers  + fds… ─────────────▶ posix_spawn of the C program, fds at those numbers
      ◀──────────────────────────── OK n pid + pidfd
      SPAWN n argv environment numbers  + fds… ▶ posix_spawn of a program of the daemon's choice, as EXEC
      ◀──────────────────────────── OK n pid + pidfd     it outlives both: nobody kills it
      KILL n pid ──────────────────────────────▶ SIGKILL, if it is a B or a job that has not ended
      DEPOSIT n name + fd, WITHDRAW n name ────▶ a listening socket that must outlive the daemon
      ◀──────────────────────────── OK n [+ fd]
      ◀──────────────────────────── FAILED n errno target     instead of OK, of anything
      EOF (the daemon died) ───────────────────▶ SIGKILL to its Bs and jobs that have not been handed over

One message is one JSON object in one SOCK_SEQPACKET record, fds by SCM_RIGHTS. Both ends check the other's uid.
"""

import json
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from sysproc.linux.unix_sockets import FdSet, recv_with_fds, send_with_fds

SOCKET_NAME = "launcher.sock"
LOCK_NAME = "launcher.lock"
LOG_NAME = "launcher.log"
FRAME_NAME = "frame"

HELLO, BUILD, JOB, EXEC, SPAWN, KILL, DEPOSIT, WITHDRAW, QUIT = (
    "hello",
    "build",
    "job",
    "exec",
    "spawn",
    "kill",
    "deposit",
    "withdraw",
    "quit",
)


def send(sock: socket.socket, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
    """One message; OSError(EMSGSIZE) if it is too large for one record."""
    send_with_fds(sock, json.dumps(message).encode(), fds)


def receive(sock: socket.socket) -> tuple[dict[str, Any] | None, FdSet]:
    """The next message and its fds, None at the end. ValueError for what is no JSON object."""
    record, fds = recv_with_fds(sock)
    if not record:
        return None, fds
    try:
        message = json.loads(record)
        if not isinstance(message, dict):
            raise ValueError(f"no object: {record[:100]!r}")
    except ValueError:
        fds.close()
        raise
    return message, fds
