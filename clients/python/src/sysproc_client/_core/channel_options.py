"""How the channels to a service are set, where they lead, and which has room for one more stream.

The channels themselves are made by `sysproc_client.channels` and `sysproc_client.aio.channels`.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from sysproc_client.endpoint import host_and_port, is_remote

C = TypeVar("C")

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


def target_of(endpoint: str) -> str:
    """Where gRPC finds the endpoint."""
    if not is_remote(endpoint):
        return endpoint
    host, port = host_and_port(endpoint)
    return f"ipv6:[{host}]:{port}" if ":" in host else f"dns:///{host}:{port}"


def options_for(endpoint: str) -> tuple[tuple[str, int], ...]:
    """All that hold for it."""
    return (*OPTIONS, *TCP_OPTIONS) if is_remote(endpoint) else OPTIONS


class Room(Generic[C]):
    """How many streams each channel carries."""

    def __init__(self) -> None:
        self.streams: dict[C, int] = {}

    def take(self, another: Callable[[], C]) -> C:
        """A channel with room, another one if there is none; give it back when the stream has ended."""
        channel = next((one for one, count in self.streams.items() if count < STREAMS_PER_CHANNEL), None)
        channel = another() if channel is None else channel
        self.streams[channel] = self.streams.get(channel, 0) + 1
        return channel

    def give_back(self, channel: C) -> None:
        """Its stream has ended."""
        if channel in self.streams:  # else all were closed meanwhile
            self.streams[channel] -= 1
