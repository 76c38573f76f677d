"""The callers on other machines that were let in, as long as they may stay.

    its certificate ends, is revoked, or is not of our authority any more ─┐
    its container is gone                                                  ├─▶ the connection is cut, once logged
    (files that have changed are read again, everybody is looked at)      ─┘

That is asked before anything goes on that a caller sends, so its next call is the first that fails; and each second,
for those who only listen. Who is let in is decided in `sysproc.server.remote`, what is good in `sysproc.server.tls` and
`sysproc.server.standing`.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from sysproc.server.handshake import TlsEnd
from sysproc.server.identity import Identity, NotAccepted, check_domain
from sysproc.server.tls import ServerTls, Tls

LOOK_S = 1.0
EXPIRED = "its certificate has expired meanwhile"


@dataclass(frozen=True)
class Guest:
    """Who it is, and who is told why the connection was cut."""

    identity: Identity
    der: bytes
    told: Callable[[str], None]

    @property
    def expired(self) -> bool:
        """Whether its certificate has ended."""
        return self.identity.ends <= time.time()

    def objection(self, tls: Tls) -> str:
        """Why it would not be let in now; empty if it would."""
        if self.expired:
            return EXPIRED
        try:
            check_domain(self.identity.domain, tls.domain)
        except NotAccepted as why:
            return str(why)
        return tls.standing.objection(self.der)


class LetIn:
    """All of them, by all TCP ports; used from one event loop."""

    def __init__(self, tls: ServerTls) -> None:
        self._tls, self._seen = tls, tls.present()
        self._guests: dict[TlsEnd, Guest] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._guests)

    def add(self, end: TlsEnd, guest: Guest) -> None:
        """One more, until its connection is closed; cut at once if files came that are against it meanwhile."""
        self._guests[end] = guest
        end.closed.add_done_callback(lambda _: self._guests.pop(end, None))
        end.ask_before = lambda: self._ask(guest)
        self._judge(end, guest, guest.objection(self._tls.present()))
        if self._timer is None:
            self._look_on()

    def gone(self, container_id: int) -> None:
        """The container is gone: whoever came with its identity goes, too."""
        for end, guest in list(self._guests.items()):
            if guest.identity.container_id == container_id:
                end.cut()

    def _ask(self, guest: Guest) -> None:
        if guest.expired or self._tls.present() is not self._seen:
            self.look()

    def look(self) -> None:
        """Look at everybody, by the files as they are now."""
        tls = self._tls.present()
        are_new, self._seen = tls is not self._seen, tls
        for end, guest in list(self._guests.items()):
            self._judge(end, guest, guest.objection(tls) if are_new else EXPIRED if guest.expired else "")

    def _judge(self, end: TlsEnd, guest: Guest, objection: str) -> None:
        if objection and not end.is_cut:
            guest.told(objection)
            end.cut()

    def _look_on(self) -> None:
        """Look from time to time, as long as there is anybody."""
        self.look()
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look_on) if self._guests else None
