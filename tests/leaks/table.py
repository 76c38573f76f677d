"""What can leak, as a table: a name, and a function that lists all of it that belongs to a scope.

Each listed thing is a text that a person can act on, and the same as long as it is the same thing. Nothing is
judged here; `tests.leaks.check` compares two moments.
"""

import os
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from tests.leaks.proc import Process, links, our_processes
from tests.leaks.scope import Scope

Getter = Callable[[Scope], Iterable[str]]


def read_lines(path: Path) -> list[str]:
    """The lines of a file of the kernel; none if it is gone by now."""
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def loops(scope: Scope) -> Iterator[str]:
    """Loop devices with a backing file below our directories (deleted ones too)."""
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        for file in read_lines(backing):
            if scope.holds(file):
                yield f"{backing.parts[3]} on {file}"


def mounts(scope: Scope) -> Iterator[str]:
    """Mounts of the host on or from below our directories."""
    for line in read_lines(Path("/proc/self/mountinfo")):
        before, _, after = line.partition(" - ")
        root, target = before.split()[3:5]
        kind, source = after.split()[:2]
        if scope.holds(f"{root} {target} {source}"):
            yield f"{kind} {source} on {target}"


def cgroup_mounts() -> Iterator[Path]:
    """Where the hierarchies are mounted."""
    for line in read_lines(Path("/proc/self/mountinfo")):
        if line.partition(" - ")[2].startswith(("cgroup ", "cgroup2 ")):
            yield Path(line.split()[4])


def cgroups(scope: Scope) -> Iterator[str]:
    """Directories below our roots, in every hierarchy."""
    for mount in cgroup_mounts():
        for root in scope.cgroup_roots:
            for directory, _, _ in os.walk(mount / root):
                yield directory


def unwatched(scope: Scope) -> Iterator[Process]:
    """Processes of ours without daemon and launcher, which may have been replaced by new ones."""
    watched = set(scope.watched().values())
    return (process for process in our_processes(scope) if process.pid not in watched)


def processes(scope: Scope) -> Iterator[str]:
    """Processes of ours: keepers, supervisors, what runs in containers; those that are watched may be new ones."""
    return (f"{process} (started at tick {process.start})" for process in unwatched(scope))


def namespaces(scope: Scope) -> Iterator[str]:
    """Namespaces other than the tests' own that a process of ours is in, or that the tests hold by an fd."""
    own = {target for _, target in links(os.getpid(), "ns")}
    for process in unwatched(scope):
        yield from (target for _, target in links(process.pid, "ns") if target not in own)
    kinds = ("mnt:[", "user:[", "net:[", "pid:[", "ipc:[", "uts:[", "cgroup:[")
    yield from (target for _, target in links(os.getpid(), "fd") if target.startswith(kinds))


def own_fds(_: Scope) -> Iterator[str]:
    """What the tests themselves have open."""
    return (f"fd {number}: {target}" for number, target in links(os.getpid(), "fd"))


def watched_fds(scope: Scope) -> Iterator[str]:
    """What the watched processes have open, counted by kind: numbers and inodes change when one restarts.

    Connections of the database are left out: they are pooled, and made as many are needed at once.
    """
    for role, pid in scope.watched().items():
        targets = (target for _, target in links(pid, "fd") if "/sysproc.db" not in target)
        kinds = Counter(re.sub(r":\[\d+\]", "", target) for target in targets)
        for kind, count in kinds.items():
            yield from (f"{role}: {kind}, number {number}" for number in range(1, count + 1))


# Containers have whole ranges, aligned.
UIDS_EACH = 65536


def uid_claims(scope: Scope) -> Iterator[str]:
    """Ranges of uids that are still claimed."""
    if scope.uid_claims is not None and scope.uid_claims.is_dir():
        yield from (str(file) for file in scope.uid_claims.iterdir())


def network_links(_: Scope) -> Iterator[str]:
    """Network links of the host."""
    return (name for _, name in socket.if_nameindex())


def keys(scope: Scope) -> Iterator[str]:
    """Users of the kernel's keyrings among the uids of containers (proc(5), /proc/key-users).

    Not where somebody lives: a process of ours would be reported as one, so this one is another daemon's.
    """
    first, last = scope.uids
    inhabited = {uid // UIDS_EACH for uid in uids_of_processes()}
    for line in read_lines(Path("/proc/key-users")):
        uid = int(line.split(":")[0])
        if first <= uid <= last and uid // UIDS_EACH not in inhabited:
            yield f"keys of uid {uid} (0x{uid:x})"


def uids_of_processes() -> Iterator[int]:
    """The owner of every process here."""
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            yield directory.stat().st_uid


def files(scope: Scope) -> Iterator[str]:
    """Files and directories below our directories."""
    for top in scope.directories:
        for directory, subdirectories, names in os.walk(top):
            paths = (f"{directory}/{name}" for name in (*subdirectories, *names))
            yield from (path for path in paths if not any(fnmatch(path, pattern) for pattern in scope.ignored))


TABLE: dict[str, Getter] = {
    "loop devices": loops,
    "mounts": mounts,
    "cgroups": cgroups,
    "processes": processes,
    "namespaces": namespaces,
    "fds of the tests": own_fds,
    "fds": watched_fds,
    "uid claims": uid_claims,
    "network links": network_links,
    "keyrings": keys,
    "files": files,
}
