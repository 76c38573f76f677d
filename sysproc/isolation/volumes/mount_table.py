"""/proc/PID/mountinfo, as far as volumes need it (proc(5)).

    36 35 7:3 / /data rw,nodev … master:1 - ext4 /dev/loop3 rw
    id    dev root point options            type  source

Only reading belongs here.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ESCAPED = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True)
class Mounted:
    """One mount. device: "major:minor" of the filesystem; point: where it is, as its namespace sees it.

    source: what whoever mounted it said, which for a type that needs a device is that device.
    """

    id: int
    device: str
    point: bytes
    read_only: bool
    fstype: str
    source: str


def mounts_of(pid: int) -> Iterator[Mounted]:
    """All mounts in the mount namespace of a process. FileNotFoundError or OSError(EINVAL) if that has ended."""
    for line in Path(f"/proc/{pid}/mountinfo").read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        number, _, device, _, point, options = before.split(b" ")[:6]
        fstype, source = after.split(b" ")[:2]
        yield Mounted(
            id=int(number),
            device=device.decode(),
            point=unescaped(point),
            read_only=b"ro" in options.split(b","),
            fstype=fstype.decode(),
            source=os.fsdecode(unescaped(source)),
        )


def unescaped(field: bytes) -> bytes:
    """Blanks, newlines and backslashes are written as three octal digits."""
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), field)
