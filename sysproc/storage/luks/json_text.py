"""JSON of a stranger, read within bounds: depth, number of parts, no key twice, no number but integers.

What the values mean is checked in `sysproc.storage.luks.metadata`.
"""

import json
import re
from typing import Any, NoReturn

from sysproc.storage.luks.bounds import MOST_JSON_DEPTH, MOST_JSON_PARTS
from sysproc.storage.luks.refusals import header_refused

# It matches to the end where a string never ends: each byte is looked at once.
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"?\\?', re.DOTALL)
_PARTS = re.compile(rb"[\[\]{},:]")
_MOST_DIGITS = 20


def read_object(area: bytes) -> dict[str, Any]:
    """The object at the beginning of a JSON area; zeros follow it."""
    text, _, rest = area.partition(b"\0")
    if rest.strip(b"\0"):
        raise header_refused("Something follows its JSON")
    _check_bounds(text)
    try:
        value = json.loads(
            text, object_pairs_hook=_unique, parse_int=_integer, parse_float=_no_number, parse_constant=_no_number
        )
    except (ValueError, RecursionError) as failure:
        raise header_refused(f"Its JSON cannot be read ({str(failure)[:100]})") from None
    if not isinstance(value, dict):
        raise header_refused("Its JSON is no object")
    return value


def write_object(value: dict[str, Any], size: int) -> bytes:
    """The JSON area of this size; OverflowError where it does not fit."""
    text = json.dumps(value, separators=(",", ":")).encode()
    if len(text) >= size:
        raise OverflowError(f"{len(text)} bytes of JSON in an area of {size}")
    return text.ljust(size, b"\0")


def _check_bounds(text: bytes) -> None:
    """Before any of it becomes objects. A string that never ends is left for the parser to find."""
    depth = 0
    for parts, found in enumerate(_PARTS.finditer(_STRINGS.sub(b"", text)), 1):
        mark = found[0]
        depth += (mark in b"[{") - (mark in b"]}")
        if parts > MOST_JSON_PARTS or depth > MOST_JSON_DEPTH:
            raise header_refused("Its JSON has too many parts, or is nested too deeply")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError("a number is too long")
    return int(text)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text[:20]} is no integer")
