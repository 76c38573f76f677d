"""The connection to a service: the channel with its options, and calls that are tried again where that is safe.

Which endpoint is meant, and what an error says, is decided here and in `sysproc_client._core.errors`.
"""

import os
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import grpc

from sysproc_client._core.errors import from_rpc_error
from sysproc_client.endpoint import check_endpoint

T = TypeVar("T")

DEFAULT_ENDPOINT = "unix:///run/sysproc/sysproc.sock"
ENDPOINT_VARIABLE = "SYSPROC_ENDPOINT"

# A first burst above the server's limit of streams is refused before anything was done (gRFC A6).
REFUSED = "RST_STREAM with error code 7"
RETRIES, RETRY_PAUSE_S = 4, 0.05

OPTIONS = (
    # A service that accepts and says nothing is given up after this; a command has said so within 2 s.
    ("grpc.min_reconnect_backoff_ms", 1200),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_receive_message_length", 16 * 2**20),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)


def chosen_endpoint(endpoint: str | None) -> str:
    """What is given, else the environment's, else the default."""
    return endpoint or os.environ.get(ENDPOINT_VARIABLE) or DEFAULT_ENDPOINT


class Connection:
    """One channel; made at once, connected with the first call."""

    def __init__(self, endpoint: str | None) -> None:
        self.endpoint = chosen_endpoint(endpoint)
        check_endpoint(self.endpoint)
        self.channel = grpc.insecure_channel(self.endpoint, options=OPTIONS)

    def call(self, method: Callable[..., T], request: Any, *, timeout: float | None = None) -> T:
        """A unary call. Raises SysprocError."""
        for attempt in range(RETRIES + 1):
            try:
                return method(request, timeout=timeout)
            except grpc.RpcError as error:
                if attempt == RETRIES or REFUSED not in (error.details() or ""):
                    raise from_rpc_error(error, self.endpoint) from error
                time.sleep(RETRY_PAUSE_S * 2**attempt)
        raise AssertionError("unreachable")

    def stream(self, call: Iterator[T]) -> Iterator[T]:
        """What a streaming call answers. Raises SysprocError."""
        try:
            yield from call
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.endpoint) from error

    def close(self) -> None:
        """Close the channel."""
        self.channel.close()
