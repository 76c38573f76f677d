"""The channels to one service: as many as its streams need.

A service bounds the streams of one connection; what is beyond that waits inside gRPC, without end if the others are
execs that last. So a stream is opened on a channel that has room, and another channel is made when none has. Calls
that are short all go over the first. What is tried again is in `sysproc_client.connection`.
"""

import threading

import grpc

from nightos.sysproc.v1.process_service_pb2_grpc import ProcessServiceStub
from sysproc_client.endpoint import host_and_port
from sysproc_client.tls import Tls

# Well below what a service grants (100 unless set otherwise), so that short calls find room beside them.
STREAMS_PER_CHANNEL = 64

OPTIONS = (
    # A service that accepts and says nothing is given up after this; a command has said so within 2 s.
    ("grpc.min_reconnect_backoff_ms", 1200),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # One that hangs while it owes an answer is found out; without the second timeout gRPC waits for a minute.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 16 * 2**20),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)
TCP_OPTIONS = (("grpc.dns_ares_query_timeout", 2000),)


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
        self.first = self._another()
        self._streams = {self.first: 0}

    def _another(self) -> grpc.Channel:
        if self._tls is None:
            return grpc.insecure_channel(self._endpoint, options=OPTIONS)
        host, port = host_and_port(self._endpoint)
        target = f"ipv6:[{host}]:{port}" if ":" in host else f"dns:///{host}:{port}"
        return grpc.secure_channel(target, self._tls.credentials(), options=(*OPTIONS, *TCP_OPTIONS))

    def place(self) -> Place:
        """Room for a stream; leave it when the stream has ended."""
        with self._lock:
            channel = next((one for one, count in self._streams.items() if count < STREAMS_PER_CHANNEL), None)
            channel = self._another() if channel is None else channel
            self._streams[channel] = self._streams.get(channel, 0) + 1
        return Place(self, channel)

    def _leave(self, channel: grpc.Channel) -> None:
        with self._lock:
            self._streams[channel] -= 1

    def close(self) -> None:
        """Close them all."""
        for channel in self._streams:
            channel.close()
