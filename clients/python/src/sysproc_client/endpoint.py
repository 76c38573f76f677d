"""Which endpoints there can be: said before gRPC, whose words for a wrong one are its own.

Which one is meant is decided in `sysproc_client.connection`, why one does not answer in `sysproc_client._core.errors`.
"""

import os

from sysproc_client._core.errors import InvalidArgument

# sun_path has 108 bytes with its NUL, unix(7).
LONGEST_SOCKET_PATH = 107


def check_endpoint(endpoint: object) -> None:
    """Raise InvalidArgument for what can be no endpoint."""
    if not isinstance(endpoint, str) or not endpoint.startswith("unix:"):
        raise no_endpoint(f"{endpoint!r} is no endpoint.", "Write unix:///path/of/the.sock.")
    path = endpoint.removeprefix("unix:").removeprefix("//")
    if not path or "\0" in path or (endpoint.startswith("unix://") and not path.startswith("/")):
        raise no_endpoint(f"{endpoint!r} names no socket.", "Write unix:///path/of/the.sock.")
    length = len(os.fsencode(path))
    if length > LONGEST_SOCKET_PATH:
        raise no_endpoint(
            f"The path of the socket has {length} bytes, and the kernel takes {LONGEST_SOCKET_PATH}.",
            "Name it by a shorter path, for example through a symbolic link to its directory.",
        )


def no_endpoint(message: str, resolution: str) -> InvalidArgument:
    """The error for what can be no endpoint."""
    return InvalidArgument(message, reason="BAD_ENDPOINT", resolution=resolution)
