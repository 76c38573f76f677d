"""The relay: public sockets in, grpcio's private socket out, and the kernel's word on who is at the other end.

    client ───connect──▶ public listener (the host's, or one container's)
                           accept; ask the kernel who it is (sysproc.server.peer)
                           bind @sysproc-<random key>, connect ───────▶ grpcio's socket in a 0700 directory
                           callers["unix-abstract:sysproc-<key>"] = Caller
           ◀──── bytes ──────────────▶ relay ◀────────── bytes ───────▶
                           either end: EOF or error ─▶ both are closed, the entry is removed

grpcio can neither be given an accepted connection nor say who is at the other end of one; it shows the address that
a connection came from, which nobody else can have or guess. What is not in `callers` did not come by the relay and
has no authority. Whoever does not read is not read from: each side pauses the other; and a container that asks too
much is not read for a while (`sysproc.server.throttle`). Where the listeners come from is in
`sysproc.server.listeners`.
"""

import asyncio
import errno
import secrets
import socket
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import structlog

from sysproc.ids import to_hex
from sysproc.server.peer import UNKNOWN, Caller, Peers
from sysproc.server.streams import Held
from sysproc.server.throttle import Bucket, Rate, Throttle, Turns

log = structlog.get_logger()

ACCEPT_AT_ONCE = 16
# How long accepting rests when the process is out of fds.
OUT_OF_FDS_S = 0.2
NO_FDS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# grpcio accepts at once; a full backlog means that its thread was not scheduled.
CONNECT_TRIES, CONNECT_AGAIN_S = 500, 0.01
# A client that does not read what is left for it is not waited for longer.
FLUSH_S = 5.0
# Of refused connections so many lines are written for each listener; all of them fill no disk.
REFUSAL_LINES = Rate(per_second=1, burst=5)

Identify = Callable[[socket.socket], Caller]
Carry = Callable[[socket.socket, Caller, Throttle | None], "asyncio.Task[None]"]


@dataclass(frozen=True)
class Bounds:
    """What one container may have: connections at a time; new ones, and calls, by time; bytes held of messages."""

    connections: int
    calls: Rate
    accepts: Rate
    held_bytes: int


class Relay:
    """All public listeners and the connections that came by them; asyncio only, from one loop."""

    def __init__(self, private_socket: Path, peers: Peers, *, bounds: Bounds) -> None:
        self._private, self._peers, self._bounds = str(private_socket), peers, bounds
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
        self._host.append(listener := Listener(sock, self._carry, self._peers.on_host, None, "host"))
        if self._accepting:
            listener.start()

    def add_listener(self, container_id: int, fd: int, uid_base: int, users: str = "") -> None:
        """Answer on a container's listening socket; the fd stays the caller's, until remove_listener."""
        identify = partial(self._peers.in_container, container_id=container_id, uid_base=uid_base, users=users)
        sock = socket.socket(fileno=fd)
        listener = Listener(sock, self._carry, identify, self._bounds, to_hex(container_id))
        self._containers[container_id] = listener
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

    def _carry(self, public: socket.socket, caller: Caller, throttle: Throttle | None) -> "asyncio.Task[None]":
        """Connect to grpcio from an address of its own, known to stand for this caller, until either end closes."""
        address = f"sysproc-{secrets.token_hex(16)}"
        private = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        private.bind(f"\0{address}")
        peer = f"unix-abstract:{address}"
        self._callers[peer] = caller
        task = asyncio.get_running_loop().create_task(carry(public, private, self._private, throttle))
        task.add_done_callback(lambda _: self._callers.pop(peer))
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)
        return task


class Listener:
    """One public socket and the connections that came by it.

    bounds: those of a container, None on the host. name: of who is there, for the log.
    """

    def __init__(self, sock: socket.socket, carry: Carry, identify: Identify, bounds: Bounds | None, name: str) -> None:
        self._sock, self._carry, self._identify, self._bounds, self._name = sock, carry, identify, bounds, name
        self._connections: set[asyncio.Task[None]] = set()
        self._resting: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        calls = None if bounds is None else Bucket(bounds.calls, self._loop.time)
        self._turns = None if calls is None else Turns(calls, self._loop.call_later)
        self._accepts = None if bounds is None else Bucket(bounds.accepts, self._loop.time)
        self._held = None if bounds is None else Held(bounds.held_bytes)
        self._refusal_lines = Bucket(REFUSAL_LINES, self._loop.time)
        sock.setblocking(False)

    def start(self) -> None:
        """Accept; what is logged then is not of the call by which this socket came here."""
        Context().run(self._loop.add_reader, self._sock, self._accept)

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
            if not self._may_accept():
                return
            try:
                public, _ = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                self._rest(error)
                return
            public.setblocking(False)
            self._take(public)

    def _may_accept(self) -> bool:
        """Whether a container may connect once more; if not, its connections wait in the backlog."""
        if self._accepts is None:
            return True
        if (wait_s := self._accepts.wait_s(1)) > 0:
            self._rest_for(wait_s)
            return False
        self._accepts.spend(1)
        return True

    def _rest(self, error: OSError) -> None:
        """Out of fds: wait a while instead of spinning. Who connects waits too."""
        if error.errno not in NO_FDS:
            raise error
        log.error("cannot accept a connection", error=str(error))
        self._rest_for(OUT_OF_FDS_S)

    def _rest_for(self, seconds: float) -> None:
        self._loop.remove_reader(self._sock)
        self._resting = self._loop.call_later(seconds, self.start)

    def _take(self, public: socket.socket) -> None:
        try:
            if self._bounds is not None and len(self._connections) >= self._bounds.connections:
                raise ConnectionRefusedError(f"more than {self._bounds.connections} connections of one container")
            connection = self._carry(public, self._identify(public), self._throttle())
        except OSError as error:
            self._log_refusal(str(error))
            public.close()
            return
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    def _throttle(self) -> Throttle | None:
        if self._turns is None or self._held is None:
            return None
        return Throttle(self._turns, self._held, self._log_refusal)

    def _log_refusal(self, why: str) -> None:
        if self._refusal_lines.tokens >= 1:
            self._refusal_lines.spend(1)
            log.warning("connection refused", container=self._name, error=why)


class End(asyncio.Protocol):
    """One end of a carried connection: what it receives goes out at the other end.

    It is not read while there is a reason not to: the other end takes no more, or the throttle keeps its bytes.
    seen: is shown all that was received.
    """

    def __init__(
        self, sock: socket.socket, throttle: Throttle | None = None, seen: Callable[[bytes], None] | None = None
    ) -> None:
        self._sock, self._throttle, self._seen = sock, throttle, seen
        self._unread_because: set[str] = set()
        self._waits = False
        self._transport: asyncio.Transport | None = None
        self._partner: End | None = None
        self._other: asyncio.Transport | None = None
        # What came before the other end was there: at most what one turn of the loop reads.
        self._early: list[bytes] = []
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def open(self) -> asyncio.Transport:
        """Begin to read."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_accepted_socket(lambda: self, self._sock)
        return transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio; what is received may come before open() returns."""
        self._transport = cast(asyncio.Transport, transport)

    def join(self, partner: "End", other: asyncio.Transport) -> None:
        """The other end is there, with its transport: what was and will be received goes to it."""
        self._partner, self._other = partner, other
        other.writelines(self._early)
        self._early.clear()

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if self._throttle is not None:
            data = self._throttled(self._throttle, data)
        if self._seen is not None:
            self._seen(data)
        if self._other is None:
            self._early.append(data)
        elif not self._other.is_closing():  # what comes after that has nowhere to go
            self._other.write(data)

    def _throttled(self, throttle: Throttle, data: bytes) -> bytes:
        """What may go on; for the rest this end waits, unread."""
        passed = throttle.passed(data)
        if throttle.excess and self._transport is not None:
            self._transport.abort()
        elif throttle.waits and not self._waits:
            self._waits = True
            self.leave_unread("rate")
            throttle.turns.wait(throttle.waits, self._go_on)
        return passed

    def _go_on(self) -> None:
        self._waits = False
        if not self.closed.done():
            self.data_received(b"")
        if not self._waits:
            self.read_again("rate")

    def leave_unread(self, why: str) -> None:
        """Do not read, for one more reason."""
        if not self._unread_because and self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
        self._unread_because.add(why)

    def read_again(self, why: str) -> None:
        """This reason is gone; read if it was the last."""
        self._unread_because.discard(why)
        if not self._unread_because and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        """See asyncio: this end takes no more, so the other is not read."""
        if self._partner is not None:
            self._partner.leave_unread("back-pressure")

    def resume_writing(self) -> None:
        """See asyncio."""
        if self._partner is not None:
            self._partner.read_again("back-pressure")

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


async def carry(public: socket.socket, private: socket.socket, path: str, throttle: Throttle | None) -> None:
    """Connect the private socket, then carry bytes both ways until either end closes. Closes both."""
    near, far = End(private, seen=throttle.answered if throttle else None), End(public, throttle)
    try:
        await connect(private, path)
        near_transport, far_transport = await near.open(), await far.open()
        near.join(far, far_transport)
        far.join(near, near_transport)
        await asyncio.wait((near.closed, far.closed), return_when=asyncio.FIRST_COMPLETED)
    except OSError as error:
        log.error("connection could not be relayed", error=str(error))
    finally:
        near.close()
        far.close()
        if throttle is not None:
            throttle.close()


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
