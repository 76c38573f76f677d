"""The relay: public sockets in, grpcio's private socket out, and the kernel's word on who is at the other end.

    client ───connect──▶ public listener (the host's, or one container's)
                           accept; ask the kernel who it is (sysproc.server.peer)
                           bind @sysproc-<random key>, connect ───────▶ grpcio's socket in a 0700 directory
                           callers["unix-abstract:sysproc-<key>"] = Caller
           ◀──── bytes ──────────────▶ relay ◀────────── bytes ───────▶
                           either end: EOF or error ─▶ both are closed, the entry is removed

grpcio can neither be given an accepted connection nor say who is at the other end of one; it shows the address that
a connection came from, which nobody else can have or guess. What is not in `callers` did not come by the relay and
has no authority. Whoever does not read is not read from: each side pauses the other. Where the listeners come
from is in `sysproc.server.listeners`.
"""

import asyncio
import errno
import secrets
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog

from sysproc.server.peer import UNKNOWN, Caller, Peers

log = structlog.get_logger()

ACCEPT_AT_ONCE = 16
# How long accepting rests when the process is out of fds.
OUT_OF_FDS_S = 0.2
NO_FDS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# grpcio accepts at once; a full backlog means that its thread was not scheduled.
CONNECT_TRIES, CONNECT_AGAIN_S = 500, 0.01
# A client that does not read what is left for it is not waited for longer.
FLUSH_S = 5.0

Identify = Callable[[socket.socket], Caller]


class Relay:
    """All public listeners and the connections that came by them; asyncio only, from one loop."""

    def __init__(self, private_socket: Path, peers: Peers, *, connections_per_container: int) -> None:
        self._private, self._peers, self._per_container = str(private_socket), peers, connections_per_container
        self._callers: dict[str, Caller] = {}
        self._host: list[Listener] = []
        self._containers: dict[int, Listener] = {}
        self._carrying: set[asyncio.Task[None]] = set()
        self._accepting = False

    def caller(self, address: str) -> Caller:
        """Who is at the other end of the connection that grpcio shows by this address."""
        return self._callers.get(address, UNKNOWN)

    def add_host(self, sock: socket.socket) -> None:
        """Answer on a listening socket of the host; the relay owns it from now on."""
        self._host.append(listener := Listener(sock, self._carry, self._peers.on_host, most=None))
        if self._accepting:
            listener.start()

    def add_listener(self, container_id: int, fd: int, uid_base: int, users: str = "") -> None:
        """Answer on a container's listening socket; the fd stays the caller's, until remove_listener."""
        identify = partial(self._peers.in_container, container_id=container_id, uid_base=uid_base, users=users)
        sock = socket.socket(fileno=fd)
        self._containers[container_id] = listener = Listener(sock, self._carry, identify, most=self._per_container)
        if self._accepting:
            listener.start()

    def remove_listener(self, container_id: int) -> None:
        """Stop answering and end the container's connections; nothing happens if it is not there."""
        listener = self._containers.pop(container_id, None)
        if listener is not None:
            listener.stop().detach()
            listener.end_connections()

    def accept(self) -> None:
        """Answer from now on, also on sockets that are added later; grpcio has to be there."""
        self._accepting = True
        for listener in (*self._host, *self._containers.values()):
            listener.start()

    def stop_accepting(self) -> None:
        """Accept no more; who connects now waits in the sockets' backlogs, for the next daemon."""
        self._accepting = False
        for listener in (*self._host, *self._containers.values()):
            listener.stop()

    async def close(self) -> None:
        """End all connections and close the host's sockets; their duplicates elsewhere go on listening."""
        for container_id in list(self._containers):
            self.remove_listener(container_id)
        for listener in self._host:
            listener.stop().close()
            listener.end_connections()
        self._host.clear()
        if self._carrying:
            await asyncio.wait(self._carrying)

    def _carry(self, public: socket.socket, caller: Caller) -> "asyncio.Task[None]":
        """Connect to grpcio from an address of its own, known to stand for this caller, until either end closes."""
        address = f"sysproc-{secrets.token_hex(16)}"
        private = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        private.bind(f"\0{address}")
        peer = f"unix-abstract:{address}"
        self._callers[peer] = caller
        task = asyncio.get_running_loop().create_task(carry(public, private, self._private))
        task.add_done_callback(lambda _: self._callers.pop(peer))
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)
        return task


class Listener:
    """One public socket and the connections that came by it."""

    def __init__(
        self,
        sock: socket.socket,
        carry: Callable[[socket.socket, Caller], "asyncio.Task[None]"],
        identify: Identify,
        most: int | None,
    ) -> None:
        self._sock, self._carry, self._identify, self._most = sock, carry, identify, most
        self._connections: set[asyncio.Task[None]] = set()
        self._resting: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        sock.setblocking(False)

    def start(self) -> None:
        """Accept."""
        self._loop.add_reader(self._sock, self._accept)

    def stop(self) -> socket.socket:
        """Accept no more; idempotent. Returns the socket, to be closed or given back."""
        if self._resting is not None:
            self._resting.cancel()
        self._loop.remove_reader(self._sock)
        return self._sock

    def end_connections(self) -> None:
        """End every connection that came by this socket."""
        for connection in self._connections:
            connection.cancel()

    def _accept(self) -> None:
        for _ in range(ACCEPT_AT_ONCE):
            try:
                public, _ = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                self._rest(error)
                return
            public.setblocking(False)
            self._take(public)

    def _rest(self, error: OSError) -> None:
        """Out of fds: wait a while instead of spinning. Who connects waits too."""
        if error.errno not in NO_FDS:
            raise error
        log.error("cannot accept a connection", error=str(error))
        self._loop.remove_reader(self._sock)
        self._resting = self._loop.call_later(OUT_OF_FDS_S, self.start)

    def _take(self, public: socket.socket) -> None:
        try:
            if self._most is not None and len(self._connections) >= self._most:
                raise ConnectionRefusedError(f"more than {self._most} connections of one container")
            connection = self._carry(public, self._identify(public))
        except OSError as error:
            log.warning("connection refused", error=str(error))
            public.close()
            return
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)


class End(asyncio.Protocol):
    """One end of a carried connection: what it receives goes out at the other end."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._transport: asyncio.Transport | None = None
        self._other: asyncio.Transport | None = None
        # What came before the other end was there: at most what one turn of the loop reads.
        self._early: list[bytes] = []
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def open(self) -> asyncio.Transport:
        """Begin to read."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.connect_accepted_socket(lambda: self, self._sock)
        return self._transport

    def join(self, other: asyncio.Transport) -> None:
        """The other end is there: what was and will be received goes to it."""
        self._other = other
        other.writelines(self._early)
        self._early.clear()

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if self._other is None:
            self._early.append(data)
        elif not self._other.is_closing():  # what comes after that has nowhere to go
            self._other.write(data)

    def pause_writing(self) -> None:
        """See asyncio: this end takes no more, so the other is not read."""
        if self._other is not None and not self._other.is_closing():
            self._other.pause_reading()

    def resume_writing(self) -> None:
        """See asyncio."""
        if self._other is not None and not self._other.is_closing():
            self._other.resume_reading()

    def connection_lost(self, _: Exception | None) -> None:
        """See asyncio."""
        self.closed.set_result(None)

    def close(self) -> None:
        """Close when what is on its way has gone out, or when that takes too long."""
        if self._transport is None:
            self._sock.close()
        elif not self.closed.done():
            self._transport.close()
            timer = self.closed.get_loop().call_later(FLUSH_S, self._transport.abort)
            self.closed.add_done_callback(lambda _: timer.cancel())


async def carry(public: socket.socket, private: socket.socket, path: str) -> None:
    """Connect the private socket, then carry bytes both ways until either end closes. Closes both."""
    near, far = End(private), End(public)
    try:
        await connect(private, path)
        near_transport, far_transport = await near.open(), await far.open()
        near.join(far_transport)
        far.join(near_transport)
        await asyncio.wait((near.closed, far.closed), return_when=asyncio.FIRST_COMPLETED)
    except OSError as error:
        log.error("connection could not be relayed", error=str(error))
    finally:
        near.close()
        far.close()


async def connect(sock: socket.socket, path: str) -> None:
    """connect(2), waiting for room in a full backlog; ConnectionRefusedError if nobody listens."""
    for _ in range(CONNECT_TRIES):
        try:
            sock.connect(path)
        except BlockingIOError:
            await asyncio.sleep(CONNECT_AGAIN_S)
        else:
            return
    raise TimeoutError("grpcio does not accept connections")
