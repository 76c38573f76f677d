"""Domain errors: what went wrong, the details, and what to do, for people and for programs.

Every error that a caller may see is a `SysprocError`; this module knows neither gRPC nor the kernel.
`sysproc.server.status` turns the kind into a gRPC status, once; wrappers in `sysproc.linux` raise plain OSError.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What sort of failure it is; the value is the NightOS range of its code (related.md, "Services")."""

    PERMISSION_DENIED = 0x0001
    INVALID_ARGUMENT = 0x1000
    INVALID_COMBINATION = 0x2000
    NOT_FOUND = 0x3000
    ALREADY_EXISTS = 0x3001
    FAILED_PRECONDITION = 0x4000
    ABORTED = 0x4001
    OUT_OF_RANGE = 0x4002
    RESOURCE_EXHAUSTED = 0x4003
    UNAVAILABLE = 0x6000
    UNIMPLEMENTED = 0x6001
    DEADLINE_EXCEEDED = 0x6002
    DATA_LOSS = 0x5000
    INTERNAL = 0x6003


@dataclass(frozen=True)
class FieldViolation:
    """One field of the request that is wrong: its path in the request, and why."""

    field: str
    description: str


class SysprocError(Exception):
    """An error for the caller.

    brief: one sentence, what happened. details: the circumstances (numbers, the kernel's words), may be empty.
    resolution: what to do about it. reason: UPPER_SNAKE, stable, for programs. metadata: facts for programs.
    """

    kind: Kind = Kind.INTERNAL
    reason: str = "INTERNAL"

    def __init__(
        self,
        brief: str,
        *,
        resolution: str,
        details: str = "",
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
    ) -> None:
        super().__init__(brief)
        self.brief, self.details, self.resolution = brief, details, resolution
        self.reason = reason or type(self).reason
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.violations = tuple(violations)

    def __str__(self) -> str:
        return " ".join(part for part in (self.brief, self.details, self.resolution) if part)


class InvalidArgument(SysprocError):
    """The request is wrong by itself, whatever exists."""

    kind, reason = Kind.INVALID_ARGUMENT, "INVALID_ARGUMENT"


class NotFound(SysprocError):
    """What the request names does not exist."""

    kind, reason = Kind.NOT_FOUND, "NOT_FOUND"


class AlreadyExists(SysprocError):
    """What the request would make is there already."""

    kind, reason = Kind.ALREADY_EXISTS, "ALREADY_EXISTS"


class PermissionDenied(SysprocError):
    """The caller may not do this."""

    kind, reason = Kind.PERMISSION_DENIED, "PERMISSION_DENIED"


class FailedPrecondition(SysprocError):
    """Not in the present state; something else has to be done first."""

    kind, reason = Kind.FAILED_PRECONDITION, "FAILED_PRECONDITION"


class Aborted(SysprocError):
    """Somebody else changed it meanwhile (an etag that no longer matches); read again and retry."""

    kind, reason = Kind.ABORTED, "ABORTED"


class OutOfRange(SysprocError):
    """An offset or revision that is no longer, or not yet, there."""

    kind, reason = Kind.OUT_OF_RANGE, "OUT_OF_RANGE"


class ResourceExhausted(SysprocError):
    """A limit, quota or disk is full."""

    kind, reason = Kind.RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED"


class LimitExceeded(ResourceExhausted):
    """A limit that somebody set for a container, or for one above it, would be exceeded; the figures are its own."""

    reason = "LIMIT_EXCEEDED"


class Unavailable(SysprocError):
    """Not now; the same call may work in a moment."""

    kind, reason = Kind.UNAVAILABLE, "UNAVAILABLE"


class DataLoss(SysprocError):
    """What is stored is damaged beyond what its own copies can restore, or was made to mislead."""

    kind, reason = Kind.DATA_LOSS, "DATA_LOSS"


class DeadlineExceeded(SysprocError):
    """It took longer than allowed."""

    kind, reason = Kind.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"


class Unimplemented(SysprocError):
    """This kernel or this version cannot do it."""

    kind, reason = Kind.UNIMPLEMENTED, "UNIMPLEMENTED"


class Internal(SysprocError):
    """A failure of the service or the kernel that the caller did not cause."""

    kind, reason = Kind.INTERNAL, "INTERNAL"
