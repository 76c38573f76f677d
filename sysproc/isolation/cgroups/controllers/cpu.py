"""cpu: how much CPU time there is, in each period of 100 ms.

Version 1 refuses a quota above that of a group further up (EINVAL), so there

    asked for    is kept in an extended attribute of the group, and survives the daemon
    in force     is the least of what was asked for by the group and by those above it

and a change goes through the subtree: what falls, deepest first; then what rises, topmost first. Version 2 does
all that by itself (sched-bwc.rst; cgroup-v2.rst, "CPU"). CPU time used is in
`sysproc.isolation.cgroups.controllers.cpuacct`.
"""

import errno
import os
import threading
from collections.abc import Iterator

from sysproc.isolation.cgroups.control_files import parse_limit, read, subdirectories, write
from sysproc.isolation.cgroups.controllers.base import Controller
from sysproc.isolation.cgroups.limits import Limits

PERIOD_USEC = 100_000
_USEC_PER_MILLI = PERIOD_USEC // 1000
_ASKED = "trusted.sysproc.cpu_millis"


class CpuV2(Controller):
    """cpu.max holds quota and period."""

    field = "cpu_millis"

    def limit(self, node: str, limits: Limits) -> None:
        """Linux 4.15."""
        quota = "max" if limits.cpu_millis is None else limits.cpu_millis * _USEC_PER_MILLI
        write(f"{node}/cpu.max", f"{quota} {PERIOD_USEC}")

    def read_limit(self, node: str) -> int | None:
        """As written, if the period is ours."""
        quota = parse_limit(read(f"{node}/cpu.max").split()[0])
        return None if quota is None else quota // _USEC_PER_MILLI


class CpuV1(Controller):
    """cpu.cfs_quota_us; -1 is no quota of its own, and allowed everywhere."""

    field = "cpu_millis"

    def __init__(self) -> None:
        # The quotas of a tree depend on each other: one change at a time.
        self._lock = threading.Lock()

    def limit(self, node: str, limits: Limits) -> None:
        """Linux 3.2; extended attributes of groups, 3.7."""
        with self._lock:
            write_asked(node, limits.cpu_millis)
            wanted = list(quotas(node, quota_above(node)))
            for group, quota in reversed(wanted):
                if _lower(quota, read_quota(group)):
                    write_quota(group, quota)
            for group, quota in wanted:
                if quota != read_quota(group):
                    write_quota(group, quota)

    def read_limit(self, node: str) -> int | None:
        """What was asked for."""
        return read_asked(node)


def quotas(node: str, bound: int | None) -> Iterator[tuple[str, int | None]]:
    """The quota of each group from this one down, topmost first; bound: that of the groups above."""
    asked = read_asked(node)
    quota = None if asked is None else asked * _USEC_PER_MILLI
    if quota is not None and bound is not None:
        quota = min(quota, bound)
    yield node, quota
    for name in subdirectories(node):
        yield from quotas(f"{node}/{name}", bound if quota is None else quota)


def quota_above(node: str) -> int | None:
    """The quota in force above a group, as for a period of 100 ms; None if there is none."""
    above = os.path.dirname(node)
    try:
        quota = read_quota(above)
    except FileNotFoundError:  # above the mount
        return None
    if quota is None:
        return quota_above(above)
    return quota * PERIOD_USEC // int(read(f"{above}/cpu.cfs_period_us"))


def read_quota(group: str) -> int | None:
    """What is in force, in microseconds a period."""
    return parse_limit(read(f"{group}/cpu.cfs_quota_us"))


def write_quota(group: str, quota: int | None) -> None:
    """Put it in force; the period of a new group is 100 ms already."""
    write(f"{group}/cpu.cfs_quota_us", -1 if quota is None else quota)


def _lower(one: int | None, other: int | None) -> bool:
    return one is not None and (other is None or one < other)


def read_asked(group: str) -> int | None:
    """What was asked for, in thousandths of a processor; None for a group that was never limited."""
    try:
        return int(os.getxattr(group, _ASKED))
    except OSError as failure:
        if failure.errno != errno.ENODATA:
            raise
        return None


def write_asked(group: str, millis: int | None) -> None:
    """Keep what was asked for with the group."""
    if millis is not None:
        os.setxattr(group, _ASKED, str(millis).encode())
    elif read_asked(group) is not None:
        os.removexattr(group, _ASKED)
