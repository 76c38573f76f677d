"""Which endpoints there can be: said before gRPC, whose words for a wrong one are its own.

Why one does not answer is said in `sysproc_client._core.errors` and, over TCP, in `sysproc_client.tls`.
"""

import os

from sysproc_client._core.errors import InvalidArgument

# sun_path has 108 bytes with its NUL, unix(7).
LONGEST_SOCKET_PATH = 107

DEFAULT_ENDPOINT = "unix:///run/sysproc/sysproc.sock"
ENDPOINT_VARIABLE = "SYSPROC_ENDPOINT"


def chosen_endpoint(endpoint: str | None) -> str:
    """What is given, else the environment's, else the default. Raises InvalidArgument for what can be none."""
    chosen = endpoint or os.environ.get(ENDPOINT_VARIABLE) or DEFAULT_ENDPOINT
    check_endpoint(chosen)
    return chosen


def check_endpoint(endpoint: object) -> None:
    """Raise InvalidArgument for what can be no endpoint."""
    if isinstance(endpoint, str) and is_remote(endpoint):
        host_and_port(endpoint)
        return
    if not isinstance(endpoint, str) or not endpoint.startswith("unix:"):
        raise no_endpoint(f"{endpoint!r} is no endpoint.", "Write unix:///path/of/the.sock or tcp://host:port.")
    path = endpoint.removeprefix("unix:").removeprefix("//")
    if not path or "\0" in path or (endpoint.startswith("unix://") and not path.startswith("/")):
        raise no_endpoint(f"{endpoint!r} names no socket.", "Write unix:///path/of/the.sock.")
    length = len(os.fsencode(path))
    if length > LONGEST_SOCKET_PATH:
        raise no_endpoint(
            f"The path of the socket has {length} bytes, and the kernel takes {LONGEST_SOCKET_PATH}.",
            "Name it by a shorter path, for example through a symbolic link to its directory.",
        )


def is_remote(endpoint: str) -> bool:
    """Whether it is one of TCP, and so of mutual TLS."""
    return endpoint.startswith("tcp:")


def host_and_port(endpoint: str) -> tuple[str, int]:
    """Of `tcp://host:port` or `tcp://[address]:port`. Raises InvalidArgument."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    is_port = port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 2**16
    if not endpoint.startswith("tcp://") or not host.strip("[]") or not is_port or (":" in host and not bracketed):
        raise no_endpoint(
            f"{endpoint!r} is no endpoint of TCP.", "Write tcp://host:port, or tcp://[address]:port for IPv6."
        )
    return host.strip("[]"), int(port)


def no_endpoint(message: str, resolution: str) -> InvalidArgument:
    """The error for what can be no endpoint."""
    return InvalidArgument(message, reason="BAD_ENDPOINT", resolution=resolution)
