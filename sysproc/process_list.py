"""The processes of a container as the host's /proc shows them, in the container's own numbers.

Only reading belongs here. Which processes are the container's is known by its cgroup (`sysproc.isolation.cgroups`).
What is read of each was written by the container's own processes (names, arguments): untrusted.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
# The most that is read of one command line.
_ARGV_BYTES = 64 * 1024


@dataclass(frozen=True)
class ProcessInfo:
    """One process. pid, parent_pid (0: outside), uid: inside; times in seconds, started_at since 1970."""

    pid: int
    parent_pid: int
    uid: int
    state: str
    argv: tuple[bytes, ...]
    started_at: float
    cpu_s: float
    resident_bytes: int
    host_pid: int


def processes(host_pids: Iterable[int], uid_base: int) -> list[ProcessInfo]:
    """What is known of these; those that end meanwhile are left out. Sorted by the pid inside. Blocks."""
    read = {pid: status for pid in host_pids if (status := read_status(pid)) is not None}
    inside = {pid: pid_inside(status) for pid, status in read.items()}
    found = (describe(pid, status, inside, uid_base) for pid, status in read.items())
    return sorted((one for one in found if one is not None), key=lambda one: one.pid)


def read_status(pid: int) -> Mapping[str, str] | None:
    """/proc/PID/status; None if the process is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def pid_inside(status: Mapping[str, str]) -> int:
    """NSpid (proc(5), Linux 4.1): from the reader's namespace downwards; the second one is the container's."""
    pids = status.get("NSpid", "").split()
    return int(pids[1]) if len(pids) > 1 else 0


def describe(pid: int, status: Mapping[str, str], inside: Mapping[int, int], uid_base: int) -> ProcessInfo | None:
    """One process, or None if it has ended, or is not inside yet."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        argv = read_argv(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None
    if not inside[pid]:
        return None
    return ProcessInfo(
        pid=inside[pid],
        parent_pid=inside.get(int(status["PPid"]), 0),
        uid=max(0, int(status["Uid"].split()[1]) - uid_base),
        state=fields[0].decode(),
        argv=argv or (status["Name"].encode(),),
        started_at=boot_time() + int(fields[19]) / _TICKS,
        cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS,
        resident_bytes=int(fields[21]) * _PAGE,
        host_pid=pid,
    )


def read_argv(pid: int) -> tuple[bytes, ...]:
    """The command line; empty for a zombie."""
    with Path(f"/proc/{pid}/cmdline").open("rb") as file:
        text = file.read(_ARGV_BYTES)
    return tuple(text.removesuffix(b"\0").split(b"\0")) if text else ()


@cache
def boot_time() -> int:
    """When the host was started, in seconds since 1970 (proc(5), /proc/stat, btime)."""
    lines = Path("/proc/stat").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("btime"))
