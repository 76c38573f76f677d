"""Times, durations, environments: what messages of several services are made of.

The messages themselves are in the files beside this one.
"""

from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from nightos.sysproc.v1.container_pb2 import EnvironmentVariable
from sysproc.server.validate import Findings

NANOS = 10**9
PAGE, MOST_PAGE = 100, 1000


def timestamp(unix_s: float | None) -> Timestamp | None:
    """Seconds since 1970 as a message; absent stays absent."""
    if unix_s is None:
        return None
    micros = round(unix_s * 10**6)
    return Timestamp(seconds=micros // 10**6, nanos=micros % 10**6 * 1000)


def duration(duration_s: float) -> Duration:
    """Seconds as a message."""
    nanos = round(duration_s * NANOS)
    return Duration(seconds=nanos // NANOS, nanos=nanos % NANOS)


def duration_s(message: Duration, field: str, least_most: tuple[float, float], findings: Findings) -> float:
    """Seconds, from a message whose two parts agree, in a range."""
    value = message.seconds + message.nanos / NANOS
    agree = -NANOS < message.nanos < NANOS and message.seconds * message.nanos >= 0
    least, most = least_most
    findings.check(agree and least <= value <= most, field, f"is no duration of {least:g} to {most:g} s")
    return value


def environment_to_proto(variables: Iterable[tuple[bytes, bytes]]) -> list[EnvironmentVariable]:
    """Variables as messages."""
    return [EnvironmentVariable(name=name, value=value) for name, value in variables]


def environment_from_proto(
    variables: Iterable[EnvironmentVariable], field: str, findings: Findings
) -> tuple[tuple[bytes, bytes], ...]:
    """Variables from messages, checked."""
    pairs = tuple((variable.name, variable.value) for variable in variables)
    findings.environment(field, pairs)
    return pairs


def optional(message: Message, field: str) -> int | None:
    """A field with presence: absent is None, never 0."""
    value: int | None = getattr(message, field) if message.HasField(field) else None
    return value


def page_size(asked: int) -> int:
    """How many entries a page has at most."""
    return min(asked, MOST_PAGE) or PAGE
