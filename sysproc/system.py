"""The verb of the system: what this service and this kernel are.

Gathered once, when first asked: a kernel does not change under a running daemon. What each feature is used for is in
`sysproc.isolation.kernel_features`; nothing of gRPC belongs here.
"""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

from sysproc.isolation import kernel_features
from sysproc.isolation.cgroups import CgroupMode, CgroupTree
from sysproc.isolation.kernel_features import Finding, Where
from sysproc.storage.state_dir import StateDir
from sysproc.to_end import to_end


@dataclass(frozen=True)
class SystemInfo:
    """Versions, and what this kernel can do."""

    version: str
    kernel_release: str
    architecture: str
    cgroup_mode: CgroupMode
    features: Sequence[Finding]
    python_version: str
    grpc_version: str


class System:
    """What there is to know about this host; one instance."""

    def __init__(self, cgroups: CgroupTree, state_dir: StateDir) -> None:
        self._where, self._found = Where(cgroups, state_dir.path), list[Finding]()

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
        )
