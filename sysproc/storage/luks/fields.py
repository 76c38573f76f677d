"""Fields of a header's JSON, taken out with their types checked: whatever is wrong is refused with its place.

LUKS2 writes numbers that may have 64 bits as strings. What the fields mean is in `sysproc.storage.luks.metadata`.
"""

import base64
import binascii
import re
from collections.abc import Collection, Mapping
from typing import Any

from sysproc.storage.luks.bounds import MOST_SLOTS
from sysproc.storage.luks.refusals import header_refused

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,19}")
_MOST_64_BITS = (1 << 64) - 1


class Fields:
    """One object of the JSON, and where it stands."""

    def __init__(self, value: object, place: str) -> None:
        if not isinstance(value, dict):
            raise header_refused(f"{place} is no object")
        self._value: Mapping[str, Any] = value
        self._place = place

    def inner(self, name: str) -> "Fields":
        """An object below."""
        return Fields(self._value.get(name), f"{self._place}.{name}")

    def numbered(self, name: str) -> dict[int, "Fields"]:
        """An object whose names are small numbers: key slots, digests, segments, tokens."""
        numbered = self.inner(name)
        return {self._index(key, name): numbered.inner(key) for key in numbered._value}

    def text(self, name: str, permitted: Collection[str] | None = None) -> str:
        """A string, one of those permitted."""
        value = self._value.get(name)
        if not isinstance(value, str) or (permitted is not None and value not in permitted):
            raise header_refused(f"{self._place}.{name} is {str(value)[:40]!r}")
        return value

    def integer(self, name: str, least: int, most: int) -> int:
        """A JSON number within bounds."""
        value = self._value.get(name)
        if type(value) is not int or not least <= value <= most:
            raise header_refused(f"{self._place}.{name} is {str(value)[:40]}")
        return value

    def decimal(self, name: str, most: int = _MOST_64_BITS) -> int:
        """A number that is written as a string."""
        value = self.text(name)
        if not _DECIMAL.fullmatch(value) or int(value) > most:
            raise header_refused(f"{self._place}.{name} is {value[:40]!r}")
        return int(value)

    def data(self, name: str, least: int, most: int) -> bytes:
        """Bytes in base64."""
        try:
            value = base64.b64decode(self.text(name), validate=True)
        except (binascii.Error, ValueError):
            raise header_refused(f"{self._place}.{name} is no base64") from None
        if not least <= len(value) <= most:
            raise header_refused(f"{self._place}.{name} has {len(value)} bytes")
        return value

    def numbers(self, name: str) -> frozenset[int]:
        """An array of small numbers that are written as strings."""
        return frozenset(self._index(item, name) for item in self.array(name))

    def array(self, name: str) -> list[Any]:
        """An array."""
        value = self._value.get(name)
        if not isinstance(value, list):
            raise header_refused(f"{self._place}.{name} is no array")
        return value

    def has(self, name: str) -> bool:
        """Whether the field is there."""
        return name in self._value

    def _index(self, key: Any, name: str) -> int:
        if not isinstance(key, str) or not _DECIMAL.fullmatch(key) or int(key) >= MOST_SLOTS:
            raise header_refused(f"{self._place}.{name} names {str(key)[:40]!r}")
        return int(key)
