"""A daemon a test, because each is killed in its own way, and the leak check around all of its life."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sysproc_client import Client
from tests.e2e.daemon import RunningDaemon
from tests.leaks import Scope, leak_check


def failpoints_of(daemon: RunningDaemon) -> Path:
    """The file that says which are armed."""
    return daemon.directory / "failpoints"


def arm(daemon: RunningDaemon, terms: str) -> None:
    """These, and no others, from now on; also in processes of the containers' users."""
    written = daemon.directory / "failpoints.new"
    written.write_text(terms)
    written.chmod(0o644)
    written.rename(failpoints_of(daemon))


@pytest.fixture(scope="module")
def daemon() -> Iterator[RunningDaemon]:
    """One set of directories for the module; the daemon in them is killed and started over and over.

    Its failpoints, and those of its launcher, are in a file (`arm`): they change without a start.
    """
    made = RunningDaemon()
    made.environment["SYSPROC_FAILPOINTS"] = f"@{failpoints_of(made)}"
    arm(made, "")
    with made as running, Client(running.endpoint) as client:
        client.create(image="busybox").destroy()
        yield running


@pytest.fixture
def nothing_is_left(daemon: RunningDaemon) -> Iterator[None]:
    """After recovery the machine is as it was before the crash."""
    scope = Scope(
        directories=(daemon.directory,),
        cgroup_roots=(daemon.cgroup_root,),
        uid_claims=daemon.uid_claims,
        watched=lambda: {"sysprocd": daemon.pid, "launcher": daemon.launcher_pid},
        ignored=("*/__pycache__*", "*.log", "*-wal", "*-shm", "*/templates/*", "*/markers*"),
    )
    if not daemon.alive():
        daemon.start()
    with leak_check(scope):
        yield
