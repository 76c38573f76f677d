"""Listening TCP sockets: which addresses an endpoint means, and a socket at one of them.

What speaks TLS on them is `sysproc.server.remote`; that they outlive the daemon is seen to in
`sysproc.server.listeners`.
"""

import asyncio
import socket

from sysproc.errors import FailedPrecondition
from sysproc.server.setting_values import TcpEndpoint

BACKLOG = 4096
# A caller whose machine has vanished is noticed after about two minutes. Accepted sockets inherit these, tcp(7).
KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))


async def addresses_of(endpoint: TcpEndpoint) -> list[TcpEndpoint]:
    """The endpoint with each address that its name has now. Raises FailedPrecondition if it has none."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise cannot_listen(endpoint, f"{endpoint.host} has no address here ({error.strerror})") from error
    numeric = [socket.getnameinfo(entry[4], socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0] for entry in found]
    return [TcpEndpoint(host, endpoint.port) for host in dict.fromkeys(numeric)]


def make(endpoint: TcpEndpoint) -> socket.socket:
    """A listening socket at a numeric address; `[::]` is all of IPv6 and not IPv4. Raises FailedPrecondition."""
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        prepare(sock)
        (*_, address), *_ = socket.getaddrinfo(endpoint.host, endpoint.port, family, flags=socket.AI_NUMERICHOST)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise cannot_listen(endpoint, error.strerror or str(error)) from error
    return sock


def prepare(sock: socket.socket) -> None:
    """Options that have to be there before the address is taken."""
    # Connections of an earlier daemon that still fade away do not hold the port.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)


def listens(sock: socket.socket) -> bool:
    """Whether a socket still listens: one that was shut down does not."""
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def cannot_listen(endpoint: TcpEndpoint, why: str) -> FailedPrecondition:
    """The error for an address that cannot be had."""
    return FailedPrecondition(
        f"Cannot listen on {endpoint}: {why}.",
        resolution="Choose another --listen, or see who uses that port (`ss -ltnp`).",
        reason="CANNOT_LISTEN",
    )
