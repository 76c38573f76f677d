"""Trees of cgroups of the tests' own, and processes in them.

On a host with both versions each test runs three times: as it is, and as if there were only one of them. What has
no controller then is left out by the tests themselves.
"""

import ctypes
import errno
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NoReturn

import pytest

from sysproc.isolation.cgroups import Cgroup, CgroupTree
from sysproc.isolation.cgroups.hierarchies import Hierarchies, find
from sysproc.linux.prctl import set_pdeathsig
from tests.leaks import Scope, leak_check

HERE = find()
VIEWS: dict[str, Hierarchies] = {"as mounted": HERE}
if HERE.v2 is not None and HERE.v1:
    VIEWS["version 1 only"] = replace(HERE, v2=None)
    VIEWS["version 2 only"] = replace(HERE, v1=())

ROOT = f"sysproc-test-{os.getpid()}"

NO_UIDS = (1, 0)

# ids of containers
A, B, C = "000000000000000a", "000000000000000b", "000000000000000c"


@pytest.fixture(params=list(VIEWS))
def hierarchies(request: pytest.FixtureRequest) -> Hierarchies:
    return VIEWS[request.param]


@pytest.fixture
def tree(hierarchies: Hierarchies) -> Iterator[CgroupTree]:
    with leak_check(Scope(cgroup_roots=(ROOT,), uids=NO_UIDS)):
        made = CgroupTree(ROOT, hierarchies=hierarchies)
        made.prepare()
        try:
            yield made
        finally:
            for path in reversed(made.leftovers()):
                made.open(path).kill()
                made.open(path).remove()
            made.remove()


Work = Callable[[], object]


class Processes:
    """Children of the test; all of them are killed and reaped at its end."""

    def __init__(self) -> None:
        self.pids: list[int] = []

    def start(self, group: Cgroup, work: Work = signal.pause) -> int:
        """A process in a container's leaf that does the work once it is there; exits with 0, or with an errno."""
        ready, go = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(go)
            _live(ready, work)
        os.close(ready)
        self.pids.append(pid)
        try:
            join(group, pid)
            os.write(go, b"!")
        finally:
            os.close(go)
        return pid

    def end(self, pid: int) -> int:
        """Wait for its end: the exit code, or minus the signal."""
        self.pids.remove(pid)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def run(self, group: Cgroup, work: Work) -> int:
        """Start and wait."""
        return self.end(self.start(group, work))

    def close(self) -> None:
        for pid in list(self.pids):
            os.kill(pid, signal.SIGKILL)
            self.end(pid)


def _live(ready: int, work: Work) -> NoReturn:
    code = 0
    try:
        set_pdeathsig(signal.SIGKILL)
        if os.read(ready, 1):
            work()
    except OSError as failure:
        code = failure.errno or errno.EIO
    finally:
        os._exit(code)


def join(group: Cgroup, pid: int) -> None:
    """Put a process into a container's leaf, in every hierarchy."""
    directories = group.procs_dirs
    for directory in (directories.v2, *directories.v1.values()):
        if directory is not None:
            with open(f"{directory}/cgroup.procs", "w") as file:
                file.write(str(pid))


@pytest.fixture
def processes(tree: CgroupTree) -> Iterator[Processes]:
    made = Processes()
    yield made
    for path in tree.leftovers():
        tree.open(path).thaw()
    made.close()


def controllers(tree: CgroupTree) -> set[str]:
    return {one.name for one in tree.controllers}


def need(tree: CgroupTree, *names: str) -> None:
    """Leave the test out where the host (or the half of it that is looked at) lacks a controller."""
    if missing := set(names) - controllers(tree):
        pytest.skip(f"no controller {', '.join(sorted(missing))} here")


def use_memory(size: int) -> None:
    """Touch so many bytes, and keep them."""
    ctypes.memset(ctypes.create_string_buffer(size), 1, size)
