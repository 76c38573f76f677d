"""Many idle containers: does the next one cost more, and what memory does each take?

Memory is the daemon's and the launcher's, the keepers' and inits' proportional set size, and what the kernel's slab
grew by, per container. Times of single verbs are in `benchmarks.lifecycle`.
"""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import timed_ms
from sysproc_client import Client, Container


@dataclass(frozen=True)
class Idle:
    """What so many idle containers cost."""

    count: int
    first_create_ms: float
    last_create_ms: float
    processes_pss_kib: float
    slab_kib: float
    daemon_rss_mib: float

    @property
    def each_kib(self) -> float:
        """All told, per container: its processes, the kernel's share, and the daemon's."""
        return self.processes_pss_kib + self.slab_kib + self.daemon_rss_mib * 1024 / self.count


def pss_kib(pid: int) -> int:
    """The proportional set size of a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def rss_mib(pid: int) -> float:
    """The resident set size of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def slab_kib() -> int:
    """What the kernel holds in slabs, kernel stacks, page tables and per-cpu areas."""
    wanted = ("Slab:", "KernelStack:", "PageTables:", "Percpu:")
    return sum(
        int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith(wanted)
    )


def _inits_and_keepers(boxes: Iterable[object], launcher_pid: int) -> list[int]:
    children = Path(f"/proc/{launcher_pid}/task/{launcher_pid}/children").read_text().split()
    keepers = [int(pid) for pid in children]
    inits = [
        int(pid) for keeper in keepers for pid in Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()
    ]
    return keepers + inits


def idle(client: Client, daemon_pid: int, launcher_pid: int, count: int) -> Idle:
    """Create so many, leave them idle, and look."""
    slab_before, rss_before = slab_kib(), rss_mib(daemon_pid)
    boxes: list[Container] = []
    times: list[float] = []
    times.extend(timed_ms(lambda: boxes.append(client.create(image="busybox"))) for _ in range(count))
    try:
        pids = _inits_and_keepers(boxes, launcher_pid)
        return Idle(
            count=count,
            first_create_ms=statistics.median(times[:20]),
            last_create_ms=statistics.median(times[-20:]),
            processes_pss_kib=sum(map(pss_kib, pids)) / count,
            slab_kib=(slab_kib() - slab_before) / count,
            daemon_rss_mib=rss_mib(daemon_pid) - rss_before,
        )
    finally:
        for box in boxes:
            box.destroy()
