"""The Python client of sysproc: `Client`, its containers, their processes, and the errors.

    with Client() as client:
        with client.create(image="busybox", memory="64M") as box:
            print(box.run(["id"]).stdout)

The same for asyncio is `sysproc_client.aio`.

Names are imported when they are first used, so that the command line starts quickly.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sysproc_client._core.errors import (
        Aborted,
        AlreadyExists,
        FailedPrecondition,
        InternalError,
        InvalidArgument,
        LimitExceeded,
        NotFound,
        OutOfRange,
        PermissionDenied,
        SysprocError,
        TimedOut,
        Unavailable,
        Unimplemented,
    )
    from sysproc_client._core.exec_machine import Chunk, Ended
    from sysproc_client._core.results import Result
    from sysproc_client._core.trees import Tree
    from sysproc_client.client import Client
    from sysproc_client.container import Container
    from sysproc_client.process import Process
    from sysproc_client.tls import Tls
    from sysproc_client.volume_mounts import Mount
    from sysproc_client.volumes import Volume

_WHERE = {
    "Client": "sysproc_client.client",
    "Container": "sysproc_client.container",
    "Mount": "sysproc_client.volume_mounts",
    "Process": "sysproc_client.process",
    "Result": "sysproc_client._core.results",
    "Tls": "sysproc_client.tls",
    "Tree": "sysproc_client._core.trees",
    "Volume": "sysproc_client.volumes",
    "Chunk": "sysproc_client._core.exec_machine",
    "Ended": "sysproc_client._core.exec_machine",
    **dict.fromkeys(
        (
            "Aborted",
            "AlreadyExists",
            "FailedPrecondition",
            "InternalError",
            "InvalidArgument",
            "LimitExceeded",
            "NotFound",
            "OutOfRange",
            "PermissionDenied",
            "SysprocError",
            "TimedOut",
            "Unavailable",
            "Unimplemented",
        ),
        "sysproc_client._core.errors",
    ),
}

__all__ = [
    "Aborted",
    "AlreadyExists",
    "Chunk",
    "Client",
    "Container",
    "Ended",
    "FailedPrecondition",
    "InternalError",
    "InvalidArgument",
    "LimitExceeded",
    "Mount",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "Process",
    "Result",
    "SysprocError",
    "TimedOut",
    "Tls",
    "Tree",
    "Unavailable",
    "Unimplemented",
    "Volume",
]


def __getattr__(name: str) -> Any:
    try:
        return getattr(import_module(_WHERE[name]), name)
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
