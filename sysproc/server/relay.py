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
much is not read for a while (`sysproc.server.throttle`). How bytes are carried is in `sysproc.server.ends`, where the
listeners come from in `sysproc.server.listeners`; callers on other machines are taken in by `sysproc.server.remote`.
"""

import asyncio
import errno
import secrets
import socket
from collections.abc import Callable
from contextvars import Context
from functools import partial
from pathlib import Path

import structlog

from sysproc.ids import to_hex
from sysproc.server.allowances import Allowance, Allowances, Bounds
from sysproc.server.ends import End, carry
from sysproc.server.peer import UNKNOWN, Caller, Peers
from sysproc.server.throttle import Bucket, Rate, Throttle

log = structlog.get_logger()

ACCEPT_AT_ONCE = 16
# How long accepting rests when the process is out of fds.
OUT_OF_FDS_S = 0.2
NO_FDS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# accept(2) tells these of the connection that it would have taken, not of the socket.
LOST = frozenset(
    {
        *(errno.EAGAIN, errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.ENOPROTOOPT, errno.EOPNOTSUPP),
        *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENONET, errno.ETIMEDOUT),
    }
)
# Of refused connections so many lines are written for each listener; all of them fill no disk.
REFUSAL_LINES = Rate(per_second=1, burst=5)

Identify = Callable[[socket.socket], Caller]
Carry = Callable[[socket.socket, Caller, Throttle | None], "asyncio.Task[None]"]


class Relay:
    """All public listeners and the connections that came by them; asyncio only, from one loop."""

    def __init__(self, private_socket: Path, peers: Peers, *, bounds: Bounds) -> None:
        self._private, self._peers = str(private_socket), peers
        self.allowances = Allowances(bounds)
        self._callers: dict[str, Caller] = {}
        self._host: list[Accepting] = []
        self._containers: dict[int, Listener] = {}
        self._carrying: set[asyncio.Task[None]] = set()
        self._accepting = False

    def caller(self, address: str) -> Caller:
        """Who is at the other end of the connection that grpcio shows by this address."""
        return self._callers.get(address, UNKNOWN)

    def add_host(self, sock: socket.socket) -> None:
        """Answer on a listening socket of the host; the relay owns it from now on."""
        self.add(Listener(sock, self._carry_local, self._peers.on_host, None, "host"))

    def add(self, listener: "Accepting") -> None:
        """Answer on a socket of the host, in a way of its own; the relay owns it from now on."""
        self._host.append(listener)
        if self._accepting:
            listener.start()

    def add_listener(self, container_id: int, fd: int, uid_base: int, users: str = "") -> None:
        """Answer on a container's listening socket; the fd stays the caller's, until remove_listener."""
        identify = partial(self._peers.in_container, container_id=container_id, uid_base=uid_base, users=users)
        sock = socket.socket(fileno=fd)
        allowance = self.allowances.of(container_id)
        listener = Listener(sock, self._carry_local, identify, allowance, to_hex(container_id))
        self._containers[container_id] = listener
        if self._accepting:
            listener.start()

    def remove_listener(self, container_id: int) -> None:
        """Stop answering and end the container's connections; nothing happens if it is not there."""
        listener = self._containers.pop(container_id, None)
        if listener is not None:
            listener.stop().detach()
            listener.end_connections()

    def forget(self, container_id: int) -> None:
        """The container itself is gone: its socket, and what was left to it."""
        self.remove_listener(container_id)
        self.allowances.forget(container_id)

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
        ending = set(self._carrying)
        for listener in self._host:
            listener.stop().close()
            ending |= listener.end_connections()
        self._host.clear()
        if ending:
            await asyncio.wait(ending)

    def _carry_local(self, public: socket.socket, caller: Caller, throttle: Throttle | None) -> "asyncio.Task[None]":
        return self.carry(End(public, throttle), caller)

    def carry(self, far: End, caller: Caller) -> "asyncio.Task[None]":
        """Connect to grpcio from an address of its own, known to stand for this caller, until either end closes."""
        address = f"sysproc-{secrets.token_hex(16)}"
        private = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        private.bind(f"\0{address}")
        peer = f"unix-abstract:{address}"
        self._callers[peer] = caller
        task = asyncio.get_running_loop().create_task(carry(far, private, self._private))
        task.add_done_callback(lambda _: self._callers.pop(peer))
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)
        return task


class Accepting:
    """One public socket and the connections that came by it; who is taken in, and how, is the subclass's."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._connections: set[asyncio.Task[None]] = set()
        self._resting: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
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

    def end_connections(self) -> "set[asyncio.Task[None]]":
        """End every connection that came by this socket; returns those that are ending."""
        for connection in self._connections:
            connection.cancel()
        return set(self._connections)

    def _accept(self) -> None:
        for _ in range(ACCEPT_AT_ONCE):
            if not self._may_accept():
                return
            try:
                public, address = self._sock.accept()
            except OSError as error:
                if error.errno not in LOST:
                    self._rest(error)
                return
            public.setblocking(False)
            self._take(public, address)

    def _may_accept(self) -> bool:
        """Whether one more may be accepted now; if not, _rest_for was called."""
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

    def _take(self, public: socket.socket, address: object) -> None:
        """Take a connection in, or close it; raises nothing. address: where it is from, as the family has it."""
        raise NotImplementedError

    def _keep(self, connection: "asyncio.Task[None]") -> None:
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)


class Listener(Accepting):
    """A unix socket: the kernel knows who connects.

    allowance: that of a container, None on the host. name: of who is there, for the log.
    """

    def __init__(
        self, sock: socket.socket, carry: Carry, identify: Identify, allowance: Allowance | None, name: str
    ) -> None:
        super().__init__(sock)
        self._carry, self._identify, self._allowance, self._name = carry, identify, allowance, name
        self._refusal_lines = Bucket(REFUSAL_LINES, self._loop.time)

    def _may_accept(self) -> bool:
        """Whether a container may connect once more; if not, its connections wait in the backlog."""
        if self._allowance is not None and (wait_s := self._allowance.accept()) > 0:
            self._rest_for(wait_s)
            return False
        return True

    def _take(self, public: socket.socket, _: object) -> None:
        try:
            self._keep(self._carry(public, self._identify(public), self._throttle()))
        except OSError as error:
            self._log_refusal(str(error))
            public.close()

    def _throttle(self) -> Throttle | None:
        if self._allowance is None:
            return None
        self._allowance.check()
        return self._allowance.throttle(self._log_refusal)

    def _keep(self, connection: "asyncio.Task[None]") -> None:
        super()._keep(connection)
        if self._allowance is not None:
            self._allowance.count(connection)

    def _log_refusal(self, why: str) -> None:
        if self._refusal_lines.tokens >= 1:
            self._refusal_lines.spend(1)
            log.warning("connection refused", container=self._name, error=why)
