"""Errors of the service as exceptions, one a kind, with its reason and what to do.

Made from a gRPC error by `from_rpc_error`; how the server writes them is in the proto of ContainerService.
"""

import os
import stat
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

if TYPE_CHECKING:
    import grpc

DETAILS_KEY = "grpc-status-details-bin"
# The reason of an error that is not the service's: nothing came back.
UNREACHABLE = "UNREACHABLE"
# gRPC's words for a message beyond the bound of whoever receives it.
_TOO_LARGE = "larger than max"


class SysprocError(Exception):
    """What the service, or the way to it, answered instead of doing what it was asked for.

    reason: UPPER_SNAKE, stable, for programs. resolution: what to do, may be empty. metadata: facts for programs.
    """

    def __init__(
        self, message: str, *, reason: str = "", resolution: str = "", metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        #: What happened, and why.
        self.message = message
        #: UPPER_SNAKE, stable: for programs.
        self.reason = reason
        #: What to do; may be empty.
        self.resolution = resolution
        #: Facts, for programs.
        self.metadata: Mapping[str, str] = dict(metadata or {})


class InvalidArgument(SysprocError):
    """The request is wrong by itself."""


class NotFound(SysprocError):
    """There is no such container, image or process."""


class AlreadyExists(SysprocError):
    """The name, or the exec id, is taken."""


class PermissionDenied(SysprocError):
    """The caller may not do this."""


class FailedPrecondition(SysprocError):
    """Not in the present state."""


class Aborted(SysprocError):
    """It was changed meanwhile: read again, and retry."""


class OutOfRange(SysprocError):
    """Output that is no longer kept."""


class LimitExceeded(SysprocError):
    """A limit, quota or disk is full."""


class Unavailable(SysprocError):
    """The service cannot be reached, or not now."""


class TimedOut(SysprocError):
    """It took longer than allowed."""


class Unimplemented(SysprocError):
    """This service, or its kernel, cannot do it."""


class InternalError(SysprocError):
    """The service failed; its log has more."""


_BY_CODE: dict[str, type[SysprocError]] = {
    "INVALID_ARGUMENT": InvalidArgument,
    "NOT_FOUND": NotFound,
    "ALREADY_EXISTS": AlreadyExists,
    "PERMISSION_DENIED": PermissionDenied,
    "FAILED_PRECONDITION": FailedPrecondition,
    "ABORTED": Aborted,
    "OUT_OF_RANGE": OutOfRange,
    "RESOURCE_EXHAUSTED": LimitExceeded,
    "UNAVAILABLE": Unavailable,
    "DEADLINE_EXCEEDED": TimedOut,
    "UNIMPLEMENTED": Unimplemented,
}


def from_rpc_error(error: "grpc.RpcError", endpoint: str, timeout: float | None = None) -> SysprocError:
    """The exception for what a call ended with. timeout: the seconds that it was given."""
    code = error.code().name
    info = error_info(error)
    if code == "UNAVAILABLE" and info is None:
        return unreachable(endpoint, error.details() or "")
    if code == "DEADLINE_EXCEEDED" and info is None:
        return no_answer(endpoint, timeout)
    if code == "RESOURCE_EXHAUSTED" and info is None and _TOO_LARGE in (error.details() or ""):
        return too_large(error.details() or "")
    metadata = dict(info.metadata) if info else {}
    resolution = metadata.pop("resolution", "")
    message = (error.details() or code).removesuffix(resolution).strip()
    kind = _BY_CODE.get(code, InternalError)
    return kind(message, reason=info.reason if info else code, resolution=resolution, metadata=metadata)


def error_info(error: "grpc.RpcError") -> ErrorInfo | None:
    """The google.rpc.ErrorInfo of an error; None if it has none."""
    trailers: Sequence[tuple[str, bytes]] = error.trailing_metadata() or ()  # type: ignore[assignment]  # as it is
    for key, value in trailers:
        if key == DETAILS_KEY:
            info = ErrorInfo()
            for detail in Status.FromString(value).details:
                if detail.Unpack(info):
                    return info
    return None


def unreachable(endpoint: str, details: str) -> Unavailable:
    """Say why the service cannot be reached, as far as that can be seen from here."""
    path = endpoint.removeprefix("unix://")
    if path == endpoint:
        return cannot_reach(endpoint, details or "no answer", "Is sysprocd running there?")
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return cannot_reach(endpoint, "there is no such socket", "Start sysprocd, or name its socket with --endpoint.")
    except PermissionError:
        return cannot_reach(endpoint, "its directory is closed to you", "Be root, or in the group `sysproc`.")
    if not stat.S_ISSOCK(mode):
        return cannot_reach(endpoint, "it is no socket", "Name the socket of sysprocd with --endpoint.")
    if not os.access(path, os.W_OK):
        return cannot_reach(endpoint, "the socket is closed to you", "Be root, or in the group `sysproc`.")
    return cannot_reach(
        endpoint, "nobody answers there", "sysprocd has ended or hangs: look at its log, start it again."
    )


def answer_lost(endpoint: str, waited: float) -> Unavailable:
    """The error for a request that was sent and not answered, and that cannot be sent again, or was in vain."""
    waiting = f", and was not back within {waited:.0f} s" if waited >= 1 else ""
    return Unavailable(
        f"The connection to {endpoint} was lost before the answer came{waiting}.",
        reason="ANSWER_LOST",
        resolution="What was asked for may have been done: look, once sysprocd runs.",
    )


def answer_lost_for_good(endpoint: str, why: Unavailable) -> Unavailable:
    """The same where the service is back, but does not let us in any more."""
    return Unavailable(
        f"The connection to {endpoint} was lost before the answer came. {why.message}",
        reason="ANSWER_LOST",
        resolution=f"{why.resolution} What was asked for may have been done.",
    )


def no_answer(endpoint: str, timeout: float | None) -> TimedOut:
    """The error for a call that was not answered in time."""
    within = "in time" if timeout is None else f"within {timeout:g} s"
    return TimedOut(
        f"{endpoint} has not answered {within}.",
        reason="NO_ANSWER",
        resolution="What was asked for may still be done: look, or repeat it with the same request_id.",
    )


def too_large(details: str) -> LimitExceeded:
    """The error for a request that gRPC did not even hand to the service. details: its words, with both sizes."""
    return LimitExceeded(
        f"The request is too large: {details}.",
        reason="REQUEST_TOO_LARGE",
        resolution="Shorten argv and env: what is long goes in as input, or in a volume.",
    )


def client_closed() -> Unavailable:
    """The error for what still uses a client that somebody else has closed."""
    return Unavailable(
        "The client was closed.",
        reason="CLIENT_CLOSED",
        resolution="Close it once nothing uses it any more. What was asked for may have been done.",
    )


def cannot_reach(endpoint: str, why: str, resolution: str) -> Unavailable:
    """The error for a service that cannot be called at all."""
    return Unavailable(f"{endpoint} cannot be reached: {why}.", reason=UNREACHABLE, resolution=resolution)
