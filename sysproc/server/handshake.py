"""The TLS end of a carried connection: its handshake, what is said when that fails, and how it is cut.

    OpenSSL's judgement of the certificate ─▶ HTTP/2 agreed on ─▶ ours: whom it names (`TellingContext.accept`)
      else its alert                            else close_notify, the one alert that Python lets us send

asyncio and uvloop throw away the alert by which OpenSSL tells a caller why it is not let in; here it is sent. What
belongs to who is let in is in `sysproc.server.remote`; an end without TLS is `sysproc.server.ends.End`.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

from sysproc.server.ends import FLUSH_S, End
from sysproc.server.identity import NotAccepted, PeerCertificate

ALPN = "h2"
HANDSHAKE_S = 10.0
# Who was refused has so long to read why; closing at once could overtake the alert.
TOLD_S = 1.0

# OpenSSL's words, and ours.
WORDS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it shows no certificate",
    "UNSUPPORTED_PROTOCOL": "it knows no TLS 1.3",
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
    "HTTP_REQUEST": "it does not speak TLS",
}


class HandshakeFailed(ssl.SSLError):
    """OpenSSL's error and the alert that it would send, or our objection and a farewell."""

    def __init__(self, cause: ssl.SSLError | NotAccepted, alert: bytes) -> None:
        super().__init__(*cause.args)
        self.cause, self.alert = cause, alert


class TellingObject(ssl.SSLObject):
    """Hands out the alert together with the error."""

    outgoing: ssl.MemoryBIO
    accept: Callable[[PeerCertificate], object]

    def do_handshake(self) -> None:
        """See ssl; raises HandshakeFailed."""
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            raise HandshakeFailed(error, self.outgoing.read()) from error
        try:
            if self.selected_alpn_protocol() != ALPN:
                raise NotAccepted("it does not ask for HTTP/2 (ALPN h2)")
            self.accept(self.getpeercert() or {})
        except NotAccepted as why:
            raise HandshakeFailed(why, self.farewell()) from why

    def farewell(self) -> bytes:
        """What ends the connection in an orderly way, to be sent."""
        with suppress(ssl.SSLError):  # that the other side has not said it yet
            self.unwrap()
        return self.outgoing.read()


class TellingContext(ssl.SSLContext):
    """A context whose failed handshakes raise HandshakeFailed.

    accept: raises NotAccepted for a certificate that is genuine, and still not one that we want.
    """

    accept: Callable[[PeerCertificate], object]

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> TellingObject:
        """See ssl."""
        self.sslobject_class = TellingObject
        made = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        if not isinstance(made, TellingObject):
            raise TypeError(f"ssl made a {type(made).__name__}")
        made.outgoing, made.accept = outgoing, self.accept
        return made


class TlsEnd(End):
    """As a plain end, once hands are shaken. Nothing is read between the handshake and the other end's arrival."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        super().__init__(sock)
        self._context = context
        # Asked before anything that was received goes on: it may cut this end.
        self.ask_before: Callable[[], None] = lambda: None
        self.is_cut = False

    async def shake_hands(self) -> None:
        """The handshake; raises OSError, of which HandshakeFailed is one, TimeoutError another."""
        spare = self._sock.dup()
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self,
                self._sock,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_S,
                ssl_shutdown_timeout=FLUSH_S,
            )
        except HandshakeFailed as failed:
            await tell(spare, failed.alert)
            raise
        finally:
            spare.close()

    @property
    def certificate(self) -> "dict[str, object]":
        """The caller's certificate, as ssl has it."""
        return dict(self._shaken().get_extra_info("peercert") or {})

    @property
    def der(self) -> bytes:
        """The caller's certificate, as it was sent."""
        return bytes(self._shaken().get_extra_info("ssl_object").getpeercert(binary_form=True))

    async def dismiss(self) -> None:
        """Say farewell to who is not let in after all; nothing happens if no hands were shaken."""
        if self._transport is None or self.is_cut or self.closed.done():
            return
        try:
            spare = self._sock.dup()
        except OSError:
            return  # closed by now, and about to say so
        try:
            await tell(spare, self._transport.get_extra_info("ssl_object").farewell())
        finally:
            spare.close()
            self.cut()

    def cut(self) -> None:
        """End it at once; idempotent. To close it takes as long as the caller likes to be asked for its farewell."""
        self.is_cut = True
        self._shaken().abort()

    async def open(self) -> asyncio.Transport:
        """See End: it is open."""
        return self._shaken()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio: hands are shaken. What follows is read when there is somewhere to put it."""
        super().connection_made(transport)
        self.leave_unread("nobody behind yet")

    def data_received(self, data: bytes) -> None:
        """See asyncio: nothing goes on of who is not good any more."""
        self.ask_before()
        if not self.is_cut:
            super().data_received(data)

    def join(self, partner: End, other: asyncio.Transport) -> None:
        """See End."""
        super().join(partner, other)
        self.read_again("nobody behind yet")

    def _shaken(self) -> asyncio.Transport:
        if self._transport is None:
            raise ConnectionError("no hands were shaken")
        return self._transport


async def tell(sock: socket.socket, alert: bytes) -> None:
    """Send the alert and wait a little until the caller has read it and closes; closing first could destroy it."""
    loop = asyncio.get_running_loop()
    # Who is gone by now need not be told.
    with suppress(OSError):
        sock.send(alert)
        sock.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(TOLD_S):
            while await loop.sock_recv(sock, 65536):
                pass


def why_failed(error: Exception) -> str:
    """In words, why a handshake did not come about."""
    cause = error.cause if isinstance(error, HandshakeFailed) else error
    if isinstance(cause, NotAccepted):
        return str(cause)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not good: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError) and cause.reason:
        return WORDS.get(cause.reason, f"no TLS comes about: {cause.reason}")
    if isinstance(cause, ConnectionAbortedError):
        return f"no handshake within {HANDSHAKE_S:g} s"
    return str(cause) or "it went away during the handshake"
