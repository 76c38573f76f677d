"""The verb of the system: what this service and this kernel are, and what room is left.

What is known of the kernel is gathered once, when first asked: it does not change under a running daemon. What each
feature is used for is in `sysproc.isolation.kernel_features`, who watches the disk in `sysproc.disk_watch`; nothing of
gRPC belongs here.
"""

import os
import platform
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from sysproc.disk_watch import DiskState
from sysproc.isolation import kernel_features
from sysproc.isolation.cgroups import CgroupMode, CgroupTree
from sysproc.isolation.kernel_features import Finding, Where
from sysproc.storage.state_dir import StateDir
from sysproc.to_end import to_end


@dataclass(frozen=True)
class SystemInfo:
    """Versions, what this kernel can do, and the disk with the state directory."""

    version: str
    kernel_release: str
    architecture: str
    cgroup_mode: CgroupMode
    features: Sequence[Finding]
    python_version: str
    grpc_version: str
    disk: DiskState


class System:
    """What there is to know about this host; one instance."""

    def __init__(
        self, cgroups: CgroupTree, state_dir: StateDir, disk_state: Callable[[], Awaitable[DiskState]]
    ) -> None:
        self._where, self._found = Where(cgroups, state_dir.path), list[Finding]()
        self._disk_state = disk_state

    async def info(self) -> SystemInfo:
        """All of it."""
        if not self._found:
            self._found = await to_end(lambda: list(kernel_features.find(self._where)))
        kernel = os.uname()
        return SystemInfo(
            version=version("sysproc"),
            kernel_release=kernel.release,
            architecture=kernel.machine,
            cgroup_mode=self._where.cgroups.mode,
            features=self._found,
            python_version=platform.python_version(),
            grpc_version=version("grpcio"),
            disk=await self._disk_state(),
        )
