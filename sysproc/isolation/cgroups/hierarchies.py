"""What hierarchies of cgroups the host has, and where they are mounted: read from /proc/self/mountinfo and cgroup.

Only finding out belongs here. What is made below the mounts is in `sysproc.isolation.cgroups.tree`.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from sysproc.errors import Unimplemented
from sysproc.isolation.cgroups.control_files import read


class CgroupMode(Enum):
    """Which versions are there (`CgroupMode` of the API)."""

    UNIFIED = "version 2 only"
    HYBRID = "controllers of version 1, and a hierarchy of version 2 beside them"
    LEGACY = "version 1 only"


@dataclass(frozen=True)
class Hierarchy:
    """One mounted hierarchy. name: as in /proc/PID/cgroup (`cpu,cpuacct`, `name=systemd`); empty: version 2."""

    name: str
    mount: str

    @property
    def controllers(self) -> frozenset[str]:
        """The controllers of version 1 that it has; a name is none."""
        return frozenset(item for item in self.name.split(",") if item and "=" not in item)


@dataclass(frozen=True)
class Hierarchies:
    """All of them. v2_controllers: what can be enabled on version 2."""

    v2: Hierarchy | None
    v1: tuple[Hierarchy, ...]
    v2_controllers: frozenset[str] = frozenset()

    @property
    def mode(self) -> CgroupMode:
        """Which versions are there."""
        if self.v2 is None:
            return CgroupMode.LEGACY
        return CgroupMode.HYBRID if self.v1 else CgroupMode.UNIFIED

    def v1_with(self, controller: str) -> Hierarchy | None:
        """The hierarchy of version 1 that has this controller."""
        return next((one for one in self.v1 if controller in one.controllers), None)


@dataclass(frozen=True)
class Mount:
    """A mount of cgroups: one line of mountinfo."""

    version: int
    root: str
    target: str
    options: frozenset[str]


def unescape(text: str) -> str:
    r"""A path of mountinfo: space, tab, newline and backslash are `\040` and so on (proc_pid_mountinfo(5))."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def parse_mounts(mountinfo: str) -> Iterator[Mount]:
    """The mounts of cgroups in the text of /proc/self/mountinfo."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if kind[0] in ("cgroup", "cgroup2"):
            options = frozenset(kind[2].split(","))
            yield Mount(2 if kind[0] == "cgroup2" else 1, unescape(fields[3]), unescape(fields[4]), options)


def parse_names(proc_cgroup: str) -> list[str]:
    """The names of all hierarchies of version 1 in the text of /proc/self/cgroup."""
    names = (line.split(":", 2)[1] for line in proc_cgroup.splitlines())
    return [name for name in names if name]


def best(mounts: Iterable[Mount]) -> Mount | None:
    """Of several mounts of one hierarchy the one that shows all of it, the first if many do."""
    return min(mounts, key=lambda mount: mount.root != "/", default=None)


def parse(mountinfo: str, proc_cgroup: str) -> tuple[Hierarchy | None, tuple[Hierarchy, ...]]:
    """Version 2's hierarchy and those of version 1, as far as they are mounted."""
    mounts = list(parse_mounts(mountinfo))
    unified = best(mount for mount in mounts if mount.version == 2)
    legacy = []
    for name in parse_names(proc_cgroup):
        own = best(mount for mount in mounts if mount.version == 1 and frozenset(name.split(",")) <= mount.options)
        if own is not None:
            legacy.append(Hierarchy(name, own.target))
    return Hierarchy("", unified.target) if unified else None, tuple(legacy)


def find() -> Hierarchies:
    """What this host has. Raises Unimplemented if no cgroups are mounted."""
    mountinfo = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    unified, legacy = parse(mountinfo, Path("/proc/self/cgroup").read_text())
    if unified is None and not legacy:
        raise Unimplemented(
            "No cgroup hierarchy is mounted on this host.",
            resolution="Mount one: mount -t cgroup2 none /sys/fs/cgroup",
            reason="NO_CGROUPS",
        )
    available = read(f"{unified.mount}/cgroup.controllers").split() if unified else []
    return Hierarchies(unified, legacy, frozenset(available))
