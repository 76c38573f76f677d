"""The processes of a scope, read from /proc.

A process is ours if it descends from the tests, sits in one of our cgroups, or names one of our directories
on its command line. Processes end while one reads: whoever is gone is skipped.
"""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.leaks.scope import Scope
from tests.reaper import ancestor

PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """One process: pid and start time name it for good."""

    pid: int
    parent: int
    start: int
    name: str
    state: str

    def __str__(self) -> str:
        zombie = ", a zombie that nobody reaps" if self.state == "Z" else ""
        return f"{self.pid} {self.name}{zombie}"


def read_text(pid: int, name: str) -> str:
    """A file of a process; empty if there is no such process any more. EINVAL: it is ending, and has no mounts now."""
    try:
        return (PROC / str(pid) / name).read_text(errors="replace")
    except OSError as failure:
        if failure.errno not in (errno.ENOENT, errno.ESRCH, errno.EINVAL):
            raise
        return ""


def parse_stat(pid: int, stat: str) -> Process:
    """Read /proc/PID/stat, whose second field may hold spaces and parentheses (proc(5))."""
    name, _, rest = stat.partition("(")[2].rpartition(")")
    fields = rest.split()
    return Process(pid, parent=int(fields[1]), start=int(fields[19]), name=name, state=fields[0])


def all_processes() -> dict[int, Process]:
    """Everything that /proc shows, by pid."""
    pids = (int(entry) for entry in os.listdir(PROC) if entry.isdigit())
    return {pid: parse_stat(pid, stat) for pid in pids if (stat := read_text(pid, "stat"))}


def descends(process: Process, ancestor: int, everyone: dict[int, Process]) -> bool:
    """Whether a process is below another one."""
    seen: Process | None = process
    while seen is not None and seen.pid != ancestor:
        seen = everyone.get(seen.parent)
    return seen is not None and process.pid != ancestor


def is_ours(process: Process, scope: Scope, everyone: dict[int, Process]) -> bool:
    """See the module's docstring."""
    if descends(process, ancestor(), everyone):
        return True
    cgroups = [line.split(":", 2)[2] for line in read_text(process.pid, "cgroup").splitlines()]
    if any(f"{path}/".startswith(f"/{root}/") for path in cgroups for root in scope.cgroup_roots):
        return True
    return scope.holds(read_text(process.pid, "cmdline"))


def our_processes(scope: Scope) -> Iterator[Process]:
    """The processes of a scope, less the tests' own."""
    everyone = all_processes()
    for process in everyone.values():
        if process.pid != os.getpid() and is_ours(process, scope, everyone):
            yield process


def links(pid: int, directory: str) -> Iterator[tuple[str, str]]:
    """The links of /proc/PID/fd or /proc/PID/ns, as far as they can be read."""
    try:
        names = os.listdir(PROC / str(pid) / directory)
    except (FileNotFoundError, ProcessLookupError):
        return
    for name in names:
        try:
            yield name, os.readlink(PROC / str(pid) / directory / name)
        except (FileNotFoundError, ProcessLookupError):
            continue
