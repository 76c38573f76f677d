"""pids: how many processes and threads there may be; the same files in both versions (cgroup-v2.rst, "PID").

A limit below what is there is accepted by the kernel: it only refuses new ones.
"""

from collections.abc import Mapping

from sysproc.isolation.cgroups.control_files import read, read_limit, write
from sysproc.isolation.cgroups.controllers.base import Controller
from sysproc.isolation.cgroups.limits import Limits


class Pids(Controller):
    """pids.max and pids.current."""

    field = "pids"

    def limit(self, node: str, limits: Limits) -> None:
        """Linux 4.3."""
        write(f"{node}/pids.max", "max" if limits.pids is None else limits.pids)

    def read_limit(self, node: str) -> int | None:
        """As written."""
        return read_limit(f"{node}/pids.max")

    def stats(self, node: str) -> Mapping[str, int | None]:
        """How many there are."""
        return {"pids": int(read(f"{node}/pids.current"))}
