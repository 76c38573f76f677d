"""Callers on other machines: accept, shake hands, see who it is by the certificate, then carry as the relay does.

    accept ─▶ handshake (TLS 1.3, mutual, HTTP/2, one URI SAN of our domain) ─▶ its container exists, within its limits
                 │ at most HANDSHAKE_S,                                             │                  │
                 │ HANDSHAKES at a time                                     else each call is refused  │
                 └─────────────── else it is closed ◀──────────────────────────────────────────────────┘

Each refusal is logged once. Who says nothing has only an entry among the handshakes; when there are too many, the
oldest one of the address that has most of them is ended, so that a flood pushes out itself. Who is in may have what its
container may (`sysproc.server.allowances`), for as long as `sysproc.server.let_in` says. Which certificates are good is
in `sysproc.server.tls`, what one says in `sysproc.server.identity`, the handshake in `sysproc.server.handshake`.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from sysproc.errors import SysprocError
from sysproc.ids import to_hex
from sysproc.server.allowances import Allowances
from sysproc.server.ends import End
from sysproc.server.handshake import TlsEnd, why_failed
from sysproc.server.identity import NotAccepted, identity_of
from sysproc.server.let_in import Guest, LetIn
from sysproc.server.peer import Caller, Remote, refuse
from sysproc.server.relay import Accepting
from sysproc.server.throttle import Bucket, Rate
from sysproc.server.tls import ServerTls

log = structlog.get_logger()

# How many handshakes of one listener are under way at a time.
HANDSHAKES = 256
# Of refusals so many lines are written for each listener.
REFUSAL_LINES = Rate(per_second=10, burst=2000)

Connection = asyncio.Task[None]


@dataclass(frozen=True)
class Admission:
    """What decides who is let in. exists: whether there is a container, which is not being destroyed."""

    tls: ServerTls
    exists: Callable[[int], Awaitable[bool]]
    allowances: Allowances
    let_in: LetIn


@dataclass(frozen=True)
class Address:
    """Where a connection is from."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class RemoteListener(Accepting):
    """One listening TCP socket."""

    def __init__(self, sock: socket.socket, carry: Callable[[End, Caller], Connection], admission: Admission) -> None:
        super().__init__(sock)
        self._carry, self._admission = carry, admission
        # Oldest first.
        self._shaking: dict[TlsEnd, tuple[Connection, Address]] = {}
        self._lines, self._untold = Bucket(REFUSAL_LINES, self._loop.time), 0

    def _take(self, public: socket.socket, address: Any) -> None:
        self._make_room()
        where = Address(*address[:2])
        tls = self._admission.tls.present()
        end = TlsEnd(public, tls.context)
        connection = self._loop.create_task(self._serve(end, tls.domain, where))
        connection.add_done_callback(lambda _: end.close())
        self._shaking[end] = (connection, where)
        connection.add_done_callback(lambda _: self._shaking.pop(end, None))
        self._keep(connection)

    def _make_room(self) -> None:
        if len(self._shaking) < HANDSHAKES:
            return
        ((busiest, _),) = Counter(where.host for _, where in self._shaking.values()).most_common(1)
        oldest = next(end for end, (_, where) in self._shaking.items() if where.host == busiest)
        connection, where = self._shaking.pop(oldest)
        self._refused(
            where, f"{HANDSHAKES} handshakes are under way, most of them of this address: the oldest is ended"
        )
        connection.cancel()

    async def _serve(self, end: TlsEnd, domain: str, where: Address) -> None:
        try:
            caller = await self._meet(end, domain, where)
        except (NotAccepted, OSError, SysprocError) as error:
            self._refused(where, why_failed(error))
            await end.dismiss()
        else:
            await self._carry(end, caller)

    async def _meet(self, end: TlsEnd, domain: str, where: Address) -> Caller:
        """Who it is; raises NotAccepted, OSError, SysprocError for who is not even told why."""
        await end.shake_hands()
        self._shaking.pop(end, None)
        identity = identity_of(end.certificate, domain)
        remote = Remote(identity.uri, identity.serial, str(where))
        self._admission.let_in.add(end, Guest(identity, end.der, partial(self._ended, remote)))
        caller = Caller(identity.container_id, 0, 0, authority=True, remote=remote)
        if identity.container_id is not None:
            caller = await self._of_container(identity.container_id, caller, end, where)
        if end.is_cut:
            raise NotAccepted("what let it in has ended meanwhile")
        log.info("remote caller", peer=remote.address, certificate=remote.serial, identity=remote.identity)
        return caller

    async def _of_container(self, container_id: int, caller: Caller, end: TlsEnd, where: Address) -> Caller:
        """The same caller, within what its container may have; or one whose calls are refused."""
        exists = await self._admission.exists(container_id)
        if end.is_cut:
            return caller  # by who has destroyed the container, after we asked
        allowance = self._admission.allowances.of(container_id if exists else None)
        if allowance.accept() > 0:
            raise NotAccepted("its container connects too often")
        allowance.check()
        allowance.count(end.closed)
        end.throttle = allowance.throttle(partial(self._refused, where))
        if exists:
            return caller
        why = f"there is no container {to_hex(container_id)}"
        self._refused(where, why)
        return refuse(caller, f"Your certificate stands for nobody: {why}.")

    def _ended(self, remote: Remote, why: str) -> None:
        log.warning(
            "connection ended", peer=remote.address, certificate=remote.serial, identity=remote.identity, reason=why
        )

    def _refused(self, where: Address, why: str) -> None:
        """The one line of log for who is not let in, or not any more; a flood does not fill the disk."""
        if self._lines.tokens < 1:
            self._untold += 1
            return
        self._lines.spend(1)
        untold = {"untold_before": self._untold} if self._untold else {}
        self._untold = 0
        log.warning("connection refused", peer=str(where), reason=why, **untold)
