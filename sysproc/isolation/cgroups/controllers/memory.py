"""memory: a bound on memory with the page cache, the kernel's own for these processes included.

A limited container does not swap (memory.swap.max 0, memsw equal to the limit): at its limit the kernel reclaims,
then kills, and the host's swap is nobody's way around the limit. Lowering a limit below what is used:

    version 1    the kernel reclaims, then says EBUSY; we drop caches and try once more
    version 2    it would kill at once; so memory.high is lowered first, which reclaims and holds growth back

and if that is not enough it is refused in both, with the figures. Documentation: memory.rst; cgroup-v2.rst, "Memory".
"""

import errno
import os
from collections.abc import Mapping

from sysproc.errors import FailedPrecondition
from sysproc.isolation.cgroups.control_files import (
    parse_flat_keyed,
    read,
    read_limit,
    read_number_if_present,
    write,
    write_if_present,
)
from sysproc.isolation.cgroups.controllers.base import Controller
from sysproc.isolation.cgroups.limits import Limits


class MemoryV1(Controller):
    """memory.limit_in_bytes, and memory.memsw.* where swap is accounted, which is never below it."""

    field = "memory_bytes"

    def prepare(self, root: str) -> None:
        """Before Linux 5.11 a limit holds for the groups below only if this is set before there are any."""
        path = f"{root}/memory.use_hierarchy"
        if os.path.exists(path) and read(path) == "0":
            write(path, 1)

    def limit(self, node: str, limits: Limits) -> None:
        """Linux 2.6.29; buffers of TCP are counted apart."""
        wanted, now = limits.memory_bytes, self.read_limit(node)
        value = -1 if wanted is None else wanted
        rising = now is not None and (wanted is None or wanted > now)
        if rising:
            write_if_present(f"{node}/memory.memsw.limit_in_bytes", value)
        self._write_limit(node, value)
        if not rising:
            write_if_present(f"{node}/memory.memsw.limit_in_bytes", value)
        if wanted != now:
            write_if_present(f"{node}/memory.kmem.tcp.limit_in_bytes", value)

    def _write_limit(self, node: str, value: int) -> None:
        path = f"{node}/memory.limit_in_bytes"
        try:
            write(path, value)
        except OSError as failure:
            if failure.errno != errno.EBUSY:
                raise
            if not self._drop_caches_and_write(node, value):
                raise in_use(value, int(read(f"{node}/memory.usage_in_bytes"))) from None

    def _drop_caches_and_write(self, node: str, value: int) -> bool:
        try:
            write(f"{node}/memory.force_empty", 0)
            write(f"{node}/memory.limit_in_bytes", value)
        except OSError as failure:
            if failure.errno != errno.EBUSY:
                raise
            return False
        return True

    def read_limit(self, node: str) -> int | None:
        """As written, down to whole pages."""
        return read_limit(f"{node}/memory.limit_in_bytes")

    def stats(self, node: str) -> Mapping[str, int | None]:
        """With all groups below."""
        return {
            "memory_bytes": int(read(f"{node}/memory.usage_in_bytes")),
            "memory_peak_bytes": int(read(f"{node}/memory.max_usage_in_bytes")),
        }


class MemoryV2(Controller):
    """memory.max and memory.swap.max."""

    field = "memory_bytes"

    def limit(self, node: str, limits: Limits) -> None:
        """Linux 4.5."""
        wanted = limits.memory_bytes
        if wanted is not None and int(read(f"{node}/memory.current")) > wanted:
            self._reclaim_and_limit(node, wanted)
        else:
            write(f"{node}/memory.max", "max" if wanted is None else wanted)
        write_if_present(f"{node}/memory.swap.max", "max" if wanted is None else 0)

    def _reclaim_and_limit(self, node: str, wanted: int) -> None:
        write(f"{node}/memory.high", wanted)
        try:
            used = int(read(f"{node}/memory.current"))
            if used > wanted:
                raise in_use(wanted, used)
            write(f"{node}/memory.max", wanted)
        finally:
            write(f"{node}/memory.high", "max")

    def read_limit(self, node: str) -> int | None:
        """As written, down to whole pages."""
        return read_limit(f"{node}/memory.max")

    def stats(self, node: str) -> Mapping[str, int | None]:
        """With all groups below; the peak since Linux 5.19."""
        return {
            "memory_bytes": int(read(f"{node}/memory.current")),
            "memory_peak_bytes": read_number_if_present(f"{node}/memory.peak"),
        }


def in_use(wanted: int, used: int) -> FailedPrecondition:
    """The error for a limit below what is used and cannot be reclaimed."""
    return FailedPrecondition(
        f"The memory limit cannot be lowered to {wanted} bytes.",
        details=f"The container uses {used} bytes that the kernel cannot reclaim.",
        resolution="End processes in it first, or ask for a higher limit.",
        reason="MEMORY_IN_USE",
        metadata={"used_bytes": str(used), "limit_bytes": str(wanted)},
    )


def oom_kills(directory: str, *, unified: bool) -> int:
    """How many processes of this very group the kernel has killed for memory (oom_kill, Linux 4.13).

    Version 2 adds those of groups below.
    """
    name = "memory.events" if unified else "memory.oom_control"
    return parse_flat_keyed(read(f"{directory}/{name}")).get("oom_kill", 0)
