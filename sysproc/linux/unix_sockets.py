"""Messages with fds over unix sockets (unix(7), SCM_RIGHTS), for SOCK_SEQPACKET.

Received fds are close-on-exec and have an owner before anybody looks at the message. What the messages mean is in
`sysproc.isolation.launcher_protocol`.
"""

import array
import errno
import os
import socket
import struct
from collections.abc import Sequence
from types import TracebackType
from typing import Self

MAX_FDS = 32
MAX_MESSAGE = 128 * 1024


class FdSet:
    """Fds that came with a message: taken one by one, the rest closed at the end."""

    def __init__(self, fds: Sequence[int] = ()) -> None:
        self._fds = list(fds)

    def __len__(self) -> int:
        return len(self._fds)

    def take(self) -> int:
        """The next fd, from now on the caller's; IndexError if there is none."""
        return self._fds.pop(0)

    def close(self) -> None:
        """Close what nobody took."""
        while self._fds:
            os.close(self._fds.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


def send_with_fds(sock: socket.socket, message: bytes, fds: Sequence[int] = (), flags: int = 0) -> None:
    """One message with duplicates of the fds; the caller keeps its own."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([message], rights, flags | socket.MSG_NOSIGNAL)


def recv_with_fds(sock: socket.socket, flags: int = 0) -> tuple[bytes, FdSet]:
    """One message and its fds; an empty message is the end. OSError(EMSGSIZE) if either did not fit."""
    space = socket.CMSG_SPACE(MAX_FDS * struct.calcsize("i"))
    message, ancillary, got, _ = sock.recvmsg(MAX_MESSAGE, space, flags | socket.MSG_CMSG_CLOEXEC)
    fds = FdSet(_fds_of(ancillary))
    if got & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
        fds.close()
        raise OSError(errno.EMSGSIZE, "message or fds cut off", "recvmsg")
    return message, fds


def _fds_of(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)
