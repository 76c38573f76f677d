"""What people write and the API wants: sizes, processors, ids, references, environments.

Each raises ValueError with words for people. What a value may be is decided by the server.
"""

import re
from collections.abc import Iterable, Mapping

from google.protobuf.duration_pb2 import Duration

from nightos.sysproc.v1.container_pb2 import EnvironmentVariable
from nightos.sysproc.v1.ref_pb2 import ContainerRef

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?b)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)", re.IGNORECASE)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_HEX_ID = re.compile(r"[0-9a-f]{16}")

Environment = Mapping[str | bytes, str | bytes] | Mapping[str, str]


def size_bytes(value: int | str) -> int:
    """`256M` is 256 MiB; a plain number is bytes. ValueError for what is no size."""
    if isinstance(value, int):
        return count(value, "bytes", 2**64)
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"{value!r} is no size: write a number, and K, M, G or T after it (256M)")
    return count(int(float(match[1]) * 1024 ** _POWERS[match[2].lower()]), "bytes", 2**64)


def cpu_millis(value: float | str) -> int:
    """`0.5` is half a processor: 500 thousandths. ValueError for what is no number of them."""
    try:
        millis = round(float(value) * 1000)
    except (ValueError, OverflowError):
        millis = -1
    if not 0 <= millis < 2**32:
        raise ValueError(f"{value!r} is no number of processors: write 0.5 or 2")
    return millis


def count(value: int, what: str, below: int = 2**32) -> int:
    """The same number, if a message can hold it; whether it makes sense is for the service to say."""
    if not 0 <= value < below:
        raise ValueError(f"{value} is no number of {what}")
    return value


def seconds(text: str) -> float:
    """`90`, `90s`, `15m`, `12h`, `7d`. ValueError for what is no time."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no time: write a number, and s, m, h or d after it (15m)")
    return float(match[1]) * _SECONDS[match[2].lower()]


def as_duration(value: float) -> Duration:
    """Seconds as the API has them. ValueError for what no message can hold."""
    if not 0 <= value < 2**53:
        raise ValueError(f"{value} is no time in seconds")
    return Duration(seconds=int(value), nanos=int(value % 1 * 1e9))


def to_hex(container_id: int) -> str:
    """An id as it is written: 16 hex digits."""
    return f"{container_id:016x}"


def reference(ref: str) -> ContainerRef:
    """An id of 16 hex digits, or a path of names `a/b/c`."""
    if _HEX_ID.fullmatch(ref):
        return ContainerRef(id=int(ref, 16))
    return ContainerRef(path=ref)


def environment(variables: Environment | None) -> Iterable[EnvironmentVariable]:
    """Names and values, as text or bytes."""
    return [
        EnvironmentVariable(name=as_bytes(name), value=as_bytes(value)) for name, value in (variables or {}).items()
    ]


def as_bytes(value: str | bytes) -> bytes:
    """Text as the operating system encodes it."""
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
