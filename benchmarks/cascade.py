"""A tree of depth 10 destroyed by one call: when the first is gone, when all are, and how much of it is the kernel's.

    ours         one DestroyContainer for the whole tree
    by hand      the same tree, the service dead: cgroup.kill, then rmdir and unlink of what is left, in one thread
    bare inits   as many processes with the same new namespaces, and nothing else of a container, killed

What is taken by hand is the kernel's part, one step after the other: a service can only do several at a time. Times
of other verbs are in `benchmarks.lifecycle`.
"""

import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.measure import timed_ms
from sysproc.linux.namespaces import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    clone3,
)
from sysproc.linux.pidfd import pidfd_open
from sysproc_client import Client, Container
from tests.e2e.daemon import RunningDaemon, cgroup_tops

NAMESPACES = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS
CALLERS = 6


@dataclass(frozen=True)
class Cascade:
    """What destroying one tree took. The processor's time is the daemon's own, all threads."""

    count: int
    first_ms: float
    total_ms: float
    daemon_cpu_ms: float

    @property
    def each_ms(self) -> float:
        """Per container."""
        return self.total_ms / self.count


@dataclass(frozen=True)
class Floor:
    """What the kernel alone takes for so many."""

    count: int
    ended_ms: float
    cgroups_ms: float
    files_ms: float
    bare_ms: float

    @property
    def total_ms(self) -> float:
        """One step after the other."""
        return self.ended_ms + self.cgroups_ms + self.files_ms


def grow(client: Client, count: int) -> list[Container]:
    """A tree in which each has two children: 1,000 of them have 10 levels. Parents are made before their children."""
    boxes = [client.create(image="busybox")]
    with ThreadPoolExecutor(CALLERS) as callers:
        while len(boxes) < count:
            level = range(len(boxes), min(count, 2 * len(boxes) + 1))
            parents = [boxes[(number - 1) // 2].id for number in level]
            boxes += callers.map(lambda parent: client.create(parent=parent), parents)
    return boxes


def cascade(client: Client, daemon_pid: int, count: int) -> Cascade:
    """Grow a tree and destroy it."""
    top = grow(client, count)[0]
    cpu_before, begin = cpu_ms(daemon_pid), time.perf_counter_ns()
    arrivals = [time.perf_counter_ns() for _ in top.destroying()]
    assert len(arrivals) == count
    return Cascade(count, (arrivals[0] - begin) / 1e6, (arrivals[-1] - begin) / 1e6, cpu_ms(daemon_pid) - cpu_before)


def floor(count: int) -> Floor:
    """The same by hand, in the stead of a daemon of its own, which is killed and not started again."""
    with RunningDaemon() as daemon, Client(daemon.endpoint) as client:
        return by_hand(daemon, grow(client, count))


def by_hand(daemon: RunningDaemon, boxes: Sequence[Container]) -> Floor:
    """Kill the daemon and end these, the first of which is the top; every step takes its time by itself."""
    count = len(boxes)
    groups = [top / boxes[0].id for top in cgroup_tops(daemon.cgroup_root)]
    directories = [path for group in groups for path, _, _ in os.walk(group, topdown=False)]
    keepers = [pidfd_open(pid) for pid in children_of(daemon.launcher_pid)]
    daemon.kill9()
    unified = next(group for group in groups if (group / "cgroup.kill").exists())
    ended = timed_ms(partial(kill_and_wait, unified, keepers))
    cgroups = timed_ms(partial(for_each, os.rmdir, directories))
    roots = [str(daemon.state_dir / "containers" / box.id / "root.vsf") for box in boxes]
    files = timed_ms(partial(for_each, os.unlink, roots))
    return Floor(count, ended, cgroups, files, bare(unified.parent, count))


def for_each(remove: Callable[[str], object], paths: Sequence[str]) -> None:
    """Remove them in this order."""
    for path in paths:
        remove(path)


def kill_and_wait(group: Path, pidfds: Sequence[int]) -> None:
    """cgroup.kill, then until the last of these has ended; they are closed."""
    (group / "cgroup.kill").write_text("1")
    poll, left = select.poll(), set(pidfds)
    for pidfd in pidfds:
        poll.register(pidfd, select.POLLIN)
    while left:
        for pidfd, _ in poll.poll():
            poll.unregister(pidfd)
            os.close(pidfd)
            left.discard(pidfd)


def bare(parent: Path, count: int) -> float:
    """Kill so many processes that have namespaces and nothing else."""
    group = parent / "bare"
    group.mkdir()
    cgroup = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        born = [pausing(cgroup) for _ in range(count)]
    finally:
        os.close(cgroup)
    took = timed_ms(partial(kill_and_wait, group, [pidfd for _, pidfd in born]))
    for pid, _ in born:
        os.waitpid(pid, 0)
    group.rmdir()
    return took


def pausing(cgroup: int) -> tuple[int, int]:
    """A process that waits to be killed: its pid and pidfd."""
    pid, pidfd = clone3(NAMESPACES, cgroup_fd=cgroup)
    while pid == 0:
        signal.pause()
    return pid, pidfd


def children_of(pid: int) -> list[int]:
    """The children of a process with one thread."""
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def cpu_ms(pid: int) -> float:
    """User and system time of a process, all threads (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")
