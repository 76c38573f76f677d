"""The two ends of a carried connection: what comes in at one goes out at the other, at the pace of who is slower.

    far: the client's socket                       near: grpcio's
      ── bytes ──▶ throttle, if it has one ──▶ write ──▶
           ◀── write ◀── seen by the throttle ◀── bytes ──

Which connections are carried, and for whom, is in `sysproc.server.relay`; one with TLS in `sysproc.server.handshake`.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import cast

import structlog

from sysproc.server.throttle import Throttle

log = structlog.get_logger()

# grpcio accepts at once; a full backlog means that its thread was not scheduled.
CONNECT_TRIES, CONNECT_AGAIN_S = 500, 0.01
# A client that does not read what is left for it is not waited for longer.
FLUSH_S = 5.0


class End(asyncio.Protocol):
    """One end of a carried connection: what it receives goes out at the other end.

    It is not read while there is a reason not to: the other end takes no more, or the throttle keeps its bytes.
    seen: is shown all that was received.
    """

    def __init__(
        self, sock: socket.socket, throttle: Throttle | None = None, seen: Callable[[bytes], None] | None = None
    ) -> None:
        self._sock, self.throttle, self._seen = sock, throttle, seen
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
        if self.throttle is not None:
            data = self._throttled(self.throttle, data)
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


async def carry(far: End, private: socket.socket, path: str) -> None:
    """Connect the private socket, then carry bytes both ways until either end closes. Closes both."""
    near = End(private, seen=far.throttle.answered if far.throttle else None)
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
        if far.throttle is not None:
            far.throttle.close()


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
