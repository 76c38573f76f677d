"""Container ids: 64 random bits from the kernel, and how they are written.

Nothing else belongs here: names and paths of names are resolved in `sysproc.storage.hierarchy`.
"""

import os
import re
from typing import NewType

ContainerId = NewType("ContainerId", int)

_HEX_ID = re.compile(r"[0-9a-f]{16}")


def new_container_id() -> ContainerId:
    """A random id, 1 to 2^64-1; 0 is the host (containers.md, "Concept of container"; getrandom(2))."""
    while not (number := int.from_bytes(os.getrandom(8), "big")):
        pass
    return ContainerId(number)


def new_volume_id() -> int:
    """As random as a container's: nobody can tell from it what else there is."""
    return new_container_id()


def to_hex(container_id: int) -> str:
    """The written form: exactly 16 lower-case hex digits."""
    return f"{container_id:016x}"


def is_hex_id(text: str) -> bool:
    """Whether the text is the written form of an id (such a text is never a name)."""
    return _HEX_ID.fullmatch(text) is not None


def from_hex(text: str) -> ContainerId:
    """Read the written form back; raises ValueError for anything else."""
    if not is_hex_id(text):
        raise ValueError(f"not a container id of 16 hex digits: {text!r}")
    return ContainerId(int(text, 16))
