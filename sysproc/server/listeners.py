"""The host's listening sockets: made once, left with the launcher, taken up again at the next start.

    start     withdrawn from the launcher, and still what its path leads to?  ──▶ used again: nobody was refused
              else made anew: bound (0660 root:group), listening ──▶ deposited with the launcher
    end       closed here; the launcher's duplicate goes on listening, who connects waits for the next daemon
    removed   (from the settings) the next start shuts it down and removes its file

Those of TCP are kept by address, each that a name has. A container's socket is made with the container and held by its
keeper. Who accepts is `sysproc.server.relay`; how a TCP socket is made is in `sysproc.server.tcp_listener`.
"""

import errno
import grp
import os
import socket
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import structlog

from sysproc.errors import FailedPrecondition
from sysproc.linux.peers import is_bound_to
from sysproc.server import tcp_listener
from sysproc.server.setting_values import Endpoint, TcpEndpoint, UnixEndpoint
from sysproc.server.setting_values import endpoint as parsed

log = structlog.get_logger()

RECORD = "listeners"
BACKLOG = 4096


class Keeper(Protocol):
    """What is asked of the launcher."""

    async def deposit(self, name: str, fd: int) -> None:
        """Leave a duplicate under a name."""

    async def withdraw(self, name: str) -> int | None:
        """A duplicate of what was left under this name."""


class HostListeners:
    """All listening sockets of the host, for one runtime directory."""

    def __init__(self, keeper: Keeper, runtime_dir: Path, endpoints: Sequence[Endpoint], gid: int | None) -> None:
        self._keeper, self._record, self._endpoints = keeper, runtime_dir / RECORD, endpoints
        self._gid = gid
        self._open: dict[Endpoint, socket.socket] = {}

    async def open(self) -> Mapping[Endpoint, socket.socket]:
        """All sockets, listening; the caller owns them. Raises FailedPrecondition where somebody else listens."""
        wanted = await addressed(self._endpoints)
        for endpoint in self._recorded():
            if endpoint not in wanted:
                await self._retire(endpoint)
        self._record.write_text("".join(f"{endpoint}\n" for endpoint in wanted))
        for endpoint in wanted:
            self._open[endpoint] = await self._take_up(endpoint) or self._make(endpoint)
        await self.deposit()
        return dict(self._open)

    async def deposit(self) -> None:
        """Leave a duplicate of each with the launcher; again when another launcher was started."""
        for endpoint, sock in self._open.items():
            if sock.fileno() >= 0:
                await self._keeper.deposit(name_of(endpoint), sock.fileno())

    def _recorded(self) -> list[Endpoint]:
        try:
            lines = self._record.read_text().splitlines()
        except FileNotFoundError:
            return []
        return [parsed(line if "://" in line else f"unix://{line}") for line in lines]

    def _make(self, endpoint: Endpoint) -> socket.socket:
        return tcp_listener.make(endpoint) if isinstance(endpoint, TcpEndpoint) else make(endpoint.path, self._gid)

    async def _take_up(self, endpoint: Endpoint) -> socket.socket | None:
        fd = await self._keeper.withdraw(name_of(endpoint))
        if fd is None:
            return None
        sock = socket.socket(fileno=fd)
        if not is_good(sock, endpoint):
            log.warning("listening socket was replaced: making another", endpoint=str(endpoint))
            sock.close()
            return None
        if isinstance(endpoint, UnixEndpoint):
            set_access(endpoint.path, self._gid)
        return sock

    async def _retire(self, endpoint: Endpoint) -> None:
        """Nobody listens there any more: who connects is told so, and who waited too."""
        sock = await self._take_up(endpoint)
        if sock is not None:
            if isinstance(endpoint, UnixEndpoint):
                endpoint.path.unlink(missing_ok=True)
            sock.shutdown(socket.SHUT_RDWR)
            sock.close()


async def addressed(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """The endpoints, each name with all its addresses; each once."""
    found: dict[Endpoint, None] = {}
    for one in endpoints:
        found.update(dict.fromkeys(await tcp_listener.addresses_of(one) if isinstance(one, TcpEndpoint) else [one]))
    return list(found)


def is_good(sock: socket.socket, endpoint: Endpoint) -> bool:
    """Whether who connects to the endpoint still reaches this socket."""
    return is_bound_to(sock, endpoint.path) if isinstance(endpoint, UnixEndpoint) else tcp_listener.listens(sock)


def name_of(endpoint: Endpoint) -> str:
    """By which name the launcher keeps the socket of this endpoint."""
    return f"listen:{endpoint.path if isinstance(endpoint, UnixEndpoint) else endpoint}"


def make(path: Path, gid: int | None) -> socket.socket:
    """A listening socket at a path; a dead one that is in the way is removed."""
    remove_dead(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    before = os.umask(0o177)
    try:
        sock.bind(str(path))
        set_access(path, gid)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise cannot_listen(path, error.strerror or str(error)) from error
    finally:
        os.umask(before)
    return sock


def set_access(path: Path, gid: int | None) -> None:
    """Who may connect: root, and the group where it exists."""
    os.chown(path, 0, gid or 0)
    path.chmod(0o660)


def remove_dead(path: Path) -> None:
    """Remove a socket file that nobody listens on; FailedPrecondition if it is alive, or something else."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise cannot_listen(path, "something that is no socket is there")
    except FileNotFoundError:
        return
    except OSError as error:
        raise cannot_listen(path, error.strerror or str(error)) from error
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as trial:
        try:
            trial.connect(str(path))
        except OSError as error:
            if error.errno != errno.ECONNREFUSED:
                raise cannot_listen(path, error.strerror or str(error)) from error
            path.unlink()
            return
    raise cannot_listen(path, "another process listens there")


def gid_of(group: str) -> int | None:
    """The group's number; None if there is no such group."""
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        log.info("no such group: only root may call from the host", group=group)
        return None


def cannot_listen(path: Path, why: str) -> FailedPrecondition:
    """The error for an endpoint that cannot be had."""
    return FailedPrecondition(
        f"Cannot listen on {path}: {why}.",
        resolution="Choose another --listen, or see who uses that path.",
        reason="CANNOT_LISTEN",
    )
