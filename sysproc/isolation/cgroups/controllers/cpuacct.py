"""cpuacct: the CPU time used. Version 2 has it without any controller, in cpu.stat (cgroup-v2.rst, "CPU").

Limits of CPU time are in `sysproc.isolation.cgroups.controllers.cpu`.
"""

from collections.abc import Mapping

from sysproc.isolation.cgroups.control_files import parse_flat_keyed, read
from sysproc.isolation.cgroups.controllers.base import Controller

_NSEC_PER_USEC = 1000


class CpuacctV1(Controller):
    """cpuacct.usage is in nanoseconds."""

    def stats(self, node: str) -> Mapping[str, int | None]:
        """All processors together."""
        return {"cpu_usec": int(read(f"{node}/cpuacct.usage")) // _NSEC_PER_USEC}


class CpuacctV2(Controller):
    """cpu.stat is in every group but the root, whether the controller cpu is enabled or not (4.15)."""

    def stats(self, node: str) -> Mapping[str, int | None]:
        """All processors together."""
        return {"cpu_usec": parse_flat_keyed(read(f"{node}/cpu.stat")).get("usage_usec")}
