"""cpuset of version 1: a new group has no processors and no memory nodes, and takes no process (cpusets.rst).

They are copied down to our root; below it the kernel does so by itself, told by cgroup.clone_children. Version 2
inherits without that. Nobody is pinned to processors here.
"""

import os

from sysproc.isolation.cgroups.control_files import read, write
from sysproc.isolation.cgroups.controllers.base import Controller

_FILES = ("cpuset.cpus", "cpuset.mems")


class CpusetV1(Controller):
    """The processors and memory nodes of the group above."""

    def prepare(self, root: str) -> None:
        """Down the path to our root, which may have several new steps."""
        copy_from_above(root)
        write(f"{root}/cgroup.clone_children", 1)

    def open(self, node: str) -> None:
        """Nothing to do, unless our root was made by somebody else."""
        copy_from_above(node)
        write(f"{node}/cgroup.clone_children", 1)


def copy_from_above(directory: str) -> None:
    """Fill what is empty from the nearest group above that is not."""
    for name in _FILES:
        if not read(f"{directory}/{name}"):
            above = os.path.dirname(directory)
            copy_from_above(above)
            write(f"{directory}/{name}", read(f"{above}/{name}"))
