"""/proc/PID/mountinfo, as far as volumes need it (proc(5)).

    36 35 7:3 / /data rw,nodev … master:1 - ext4 /dev/loop3 rw
    id    dev root point

Only reading belongs here.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ESCAPED = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True)
class Mounted:
    """One mount. device: "major:minor" of the filesystem; point: where it is, as its namespace sees it."""

    id: int
    device: str
    point: bytes


def mounts_of(pid: int) -> Iterator[Mounted]:
    """All mounts in the mount namespace of a process. FileNotFoundError or OSError(EINVAL) if that has ended."""
    for line in Path(f"/proc/{pid}/mountinfo").read_bytes().splitlines():
        number, _, device, _, point = line.split(b" ", 5)[:5]
        yield Mounted(int(number), device.decode(), _ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), point))
