"""One file a controller, and the table that names them.

A controller is used on version 1 where that has it mounted, else on version 2. Hierarchies whose controllers are not
in the table (blkio, freezer, net_cls, name=systemd …) are joined, and nothing is set in them. When each method is
called is said in `base`; by whom, in `sysproc.isolation.cgroups.tree` and `sysproc.isolation.cgroups.group`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sysproc.isolation.cgroups.controllers.base import Controller
from sysproc.isolation.cgroups.controllers.cpu import CpuV1, CpuV2
from sysproc.isolation.cgroups.controllers.cpuacct import CpuacctV1, CpuacctV2
from sysproc.isolation.cgroups.controllers.cpuset import CpusetV1
from sysproc.isolation.cgroups.controllers.devices import DevicesV1, DevicesV2
from sysproc.isolation.cgroups.controllers.memory import MemoryV1, MemoryV2
from sysproc.isolation.cgroups.controllers.pids import Pids
from sysproc.isolation.cgroups.hierarchies import Hierarchies
from sysproc.isolation.cgroups.place import Place


@dataclass(frozen=True)
class Versions:
    """A controller on both versions; None: nothing is needed there. enable: it has to be enabled on version 2."""

    v1: Controller | None
    v2: Controller | None
    enable: bool = False


CONTROLLERS: Mapping[str, Versions] = {
    "memory": Versions(MemoryV1(), MemoryV2(), enable=True),
    "cpu": Versions(CpuV1(), CpuV2(), enable=True),
    "pids": Versions(Pids(), Pids(), enable=True),
    "devices": Versions(DevicesV1(), DevicesV2()),
    "cpuset": Versions(CpusetV1(), None),
    "cpuacct": Versions(CpuacctV1(), CpuacctV2()),
}


@dataclass(frozen=True)
class Bound:
    """A controller where this host has it. hierarchy: the name of version 1's; None: version 2."""

    name: str
    controller: Controller
    hierarchy: str | None

    def directory(self, place: Place) -> str:
        """Its directory of a place."""
        directory = place.v2 if self.hierarchy is None else place.v1[self.hierarchy]
        if directory is None:
            raise LookupError(f"no hierarchy for {self.name}")
        return directory


def bind(hierarchies: Hierarchies) -> Iterator[Bound]:
    """The controllers of the table that this host has."""
    for name, versions in CONTROLLERS.items():
        legacy = hierarchies.v1_with(name)
        unified = hierarchies.v2 is not None and (not versions.enable or name in hierarchies.v2_controllers)
        if legacy is not None:
            if versions.v1 is not None:
                yield Bound(name, versions.v1, legacy.name)
        elif unified and versions.v2 is not None:
            yield Bound(name, versions.v2, None)


def to_enable(hierarchies: Hierarchies) -> frozenset[str]:
    """The controllers that have to be enabled on version 2 in every group that is divided further."""
    return frozenset(one.name for one in bind(hierarchies) if one.hierarchy is None and CONTROLLERS[one.name].enable)
