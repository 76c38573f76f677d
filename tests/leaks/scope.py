"""What a leak check regards as ours.

How the kernel is asked about it is in `tests.leaks.table`; when, in `tests.leaks.check`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


def nobody() -> Mapping[str, int]:
    """No process is watched."""
    return {}


@dataclass(frozen=True)
class Scope:
    """The names under which one daemon, or one kernel test, keeps everything that it makes.

    directories: state and runtime directories, temporary ones: loops, mounts and files below them are ours,
        and processes that name them on their command line.
    cgroup_roots: paths below the mount point of each hierarchy, without a leading slash.
    uid_claims: the directory with one file for each range of uids in use.
    uids: the range from which containers get theirs, first and last.
    watched: gives role and pid of processes whose open fds are compared (they may get new pids meanwhile).
    ignored: patterns (fnmatch, of the whole path) of files that may appear: logs, caches.
    """

    directories: tuple[Path, ...] = ()
    cgroup_roots: tuple[str, ...] = ()
    uid_claims: Path | None = None
    uids: tuple[int, int] = (0x70000000, 0x7FFDFFFF)
    watched: Callable[[], Mapping[str, int]] = nobody
    ignored: tuple[str, ...] = field(default=("*/__pycache__*", "*.log", "*-wal", "*-shm"))

    def holds(self, text: str) -> bool:
        """Whether a text (a path, a command line, a line of mountinfo) names one of the directories."""
        return any(str(directory) in text for directory in self.directories)
