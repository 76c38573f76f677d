"""The channels to one service: as many as its streams need.

A service bounds the streams of one connection; what is beyond that waits inside gRPC, without end if the others are
execs that last. So a stream is opened on a channel that has room, and another channel is made when none has. Calls
that are short all go over the first. How they are set is in `sysproc_client._core.channel_options`,
what is tried again in `sysproc_client.connection`.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from nightos.sysproc.v1.process_service_pb2_grpc import ProcessServiceStub
from sysproc_client._core.channel_options import Room, options_for, target_of
from sysproc_client._core.errors import client_closed
from sysproc_client.tls import Tls

# gRPC waits for what is being sent, though its call was cancelled; it moves in this time, or not at all.
CLOSE_S = 2.0


class Place:
    """Room for one stream on a channel, until it is left."""

    def __init__(self, channels: "Channels", channel: grpc.Channel) -> None:
        self.processes = ProcessServiceStub(channel)
        self._channels, self._channel = channels, channel

    def leave(self) -> None:
        """The stream has ended; call it once."""
        self._channels._leave(self._channel)


class Channels:
    """All channels to one endpoint; made at once, connected with the first call. Threads may share it.

    tls: for an endpoint of TCP, which there is not without.
    """

    def __init__(self, endpoint: str, tls: Tls | None) -> None:
        self._endpoint, self._tls, self._lock = endpoint, tls, threading.Lock()
        #: Whether somebody has closed them, for good.
        self.closed = False
        self.first = self._another()
        self._room: Room[grpc.Channel] = Room()
        self._room.streams[self.first] = 0

    def _another(self) -> grpc.Channel:
        target, options = target_of(self._endpoint), options_for(self._endpoint)
        if self._tls is None:
            return grpc.insecure_channel(target, options=options)
        return grpc.secure_channel(target, self._tls.credentials(), options=options)

    def place(self) -> Place:
        """Room for a stream; leave it when the stream has ended. Raises Unavailable (they are closed)."""
        with self._lock:
            if self.closed:
                raise client_closed()
            channel = self._room.take(self._another)
        return Place(self, channel)

    @contextmanager
    def still_open(self) -> Iterator[None]:
        """Begin a call in it. Raises Unavailable (they are closed), which is a ValueError of gRPC's."""
        try:
            yield
        except ValueError:
            if not self.closed:
                raise
            raise client_closed() from None

    def _leave(self, channel: grpc.Channel) -> None:
        with self._lock:
            self._room.give_back(channel)

    def close(self) -> None:
        """Close them all. One whose link takes nothing any more is left to end by itself, with its keepalive."""
        with self._lock:
            self.closed = True
            channels = [*self._room.streams]
        closing = [thread for channel in channels if (thread := closed_meanwhile(channel)) is not None]
        deadline = time.monotonic() + CLOSE_S
        for thread in closing:
            thread.join(max(deadline - time.monotonic(), 0))


def closed_meanwhile(channel: grpc.Channel) -> threading.Thread | None:
    """Who closes it; None if it is closed already, as when the interpreter ends and begins no thread any more."""
    thread = threading.Thread(target=channel.close, daemon=True)
    try:
        thread.start()
    except RuntimeError:  # of Python 3.12 and later, at its end
        channel.close()
        return None
    return thread
