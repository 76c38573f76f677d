"""What people write and the API wants: sizes, processors, ids, references, environments, plain numbers and texts.

Each raises InvalidArgument with words for people where no message can hold it; what a value may be beyond that is
decided by the service.
"""

import math
import re
from collections.abc import Iterable, Mapping

from google.protobuf.duration_pb2 import Duration

from nightos.sysproc.v1.container_pb2 import EnvironmentVariable
from nightos.sysproc.v1.ref_pb2 import ContainerRef
from sysproc_client._core.errors import InvalidArgument

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?b)?", re.IGNORECASE | re.ASCII)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)", re.IGNORECASE | re.ASCII)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_HEX_ID = re.compile(r"[0-9a-f]{16}")
_MOST_SHOWN = 80

Environment = Mapping[str | bytes, str | bytes] | Mapping[str, str]


def bad(value: object, what: str, resolution: str) -> InvalidArgument:
    """The error for an argument that is no such thing."""
    shown = repr(value)
    shown = shown if len(shown) <= _MOST_SHOWN else shown[:_MOST_SHOWN] + "…"
    return InvalidArgument(f"{shown} is no {what}.", reason="BAD_ARGUMENT", resolution=resolution)


# -- numbers


def size_bytes(value: object) -> int:
    """`256M` is 256 MiB; a plain number is bytes."""
    if not isinstance(value, str):
        return count(value, "bytes", 2**64)
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise bad(value, "size", "Write a number, and K, M, G or T after it: 256M.")
    return count(int(float(match[1]) * 1024 ** _POWERS[match[2].lower()]), "bytes", 2**64)


def cpu_millis(value: object) -> int:
    """`0.5` is half a processor: 500 thousandths."""
    try:
        millis = round(float(value) * 1000)  # type: ignore[arg-type]  # what it does not take is a TypeError
    except (ValueError, OverflowError, TypeError):
        millis = -1
    if not 0 <= millis < 2**32:
        raise bad(value, "number of processors", "Write 0.5 or 2.")
    return millis


def count(value: object, what: str, below: int = 2**32) -> int:
    """The same whole number, if a message can hold it; whether it makes sense is for the service to say."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < below:
        raise bad(value, f"number of {what}", f"Give a whole number from 0 to {below - 1}.")
    return value


def seconds(text: str) -> float:
    """`90`, `90s`, `15m`, `12h`, `7d`."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise bad(text, "time", "Write a number, and s, m, h or d after it: 15m.")
    return float(match[1]) * _SECONDS[match[2].lower()]


def as_duration(value: object) -> Duration:
    """Seconds as the API has them."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or math.isnan(value) or not 0 <= value < 2**53:
        raise bad(value, "time in seconds", "Give a number of seconds, 0 or more.")
    return Duration(seconds=int(value), nanos=int(value % 1 * 1e9))


# -- texts


def text(value: object, what: str) -> str:
    """The same text, if it is one that a message can hold."""
    if not isinstance(value, str):
        raise bad(value, what, "Give a text (str).")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise bad(value, f"{what} in UTF-8", "Give a text without bytes that are no characters.") from None
    return value


def labels_of(labels: object) -> dict[str, str]:
    """Labels: texts by texts."""
    return {text(key, "key of a label"): text(value, "value of a label") for key, value in items(labels, "labels")}


def items(values: object, what: str) -> Iterable[tuple[object, object]]:
    """What a mapping holds; nothing for None."""
    if values is None:
        return ()
    if not isinstance(values, Mapping):
        raise bad(values, f"mapping for the {what}", 'Give a dict: {"name": "value"}.')
    return values.items()


# -- ids, commands


def to_hex(container_id: int) -> str:
    """An id as it is written: 16 hex digits."""
    return f"{container_id:016x}"


def reference(ref: object) -> ContainerRef:
    """An id of 16 hex digits, or a path of names `a/b/c`."""
    written = text(ref, "container")
    if not written:
        raise bad(ref, "container", "Give its id of 16 hex digits, or its path of names: web/worker.")
    if _HEX_ID.fullmatch(written):
        return ContainerRef(id=int(written, 16))
    return ContainerRef(path=written)


def environment(variables: object) -> list[EnvironmentVariable]:
    """Names and values, as text or bytes."""
    return [
        EnvironmentVariable(name=as_bytes(name), value=as_bytes(value))
        for name, value in items(variables, "environment")
    ]


def command(argv: object) -> list[bytes]:
    """A command and its arguments. One text is refused: it would become an argument a character."""
    if isinstance(argv, (str, bytes)) or not isinstance(argv, Iterable):
        raise bad(argv, "list of arguments", 'Give each by itself: ["sh", "-c", "echo hello"].')
    return [as_bytes(part) for part in argv]


def as_bytes(value: object) -> bytes:
    """Text as the operating system encodes it."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise bad(value, "text", "Give a text (str) or bytes.")
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise bad(value, "text in UTF-8", "Give bytes, if it is none.") from None
