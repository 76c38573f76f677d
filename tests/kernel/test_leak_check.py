"""The leak check itself: each thing in its table is seen when it stays, and nothing when it goes.

What it compares is in `tests.leaks.table`; these tests make each leak on purpose, and then take it away.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.leaks import Leaked, Scope, leak_check
from tests.leaks.proc import all_processes
from tests.leaks.table import cgroup_mounts
from tests.reaper import ancestor

Leak = Callable[[Path], AbstractContextManager[None]]

CGROUP = f"sysproc-test-leaks-{os.getpid()}"


@contextmanager
def leaked_file(directory: Path) -> Iterator[None]:
    (directory / "left").touch()
    yield
    (directory / "left").unlink()


@contextmanager
def leaked_mount(directory: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "none", directory], check=True)
    yield
    subprocess.run(["umount", directory], check=True)


@contextmanager
def leaked_loop(directory: Path) -> Iterator[None]:
    file = directory / "disk"
    file.write_bytes(bytes(1 << 20))
    done = subprocess.run(["losetup", "--find", "--show", file], check=True, stdout=subprocess.PIPE, text=True)
    file.unlink()
    yield
    subprocess.run(["losetup", "--detach", done.stdout.strip()], check=True)


@contextmanager
def leaked_cgroup(_: Path) -> Iterator[None]:
    made = [mount / CGROUP for mount in cgroup_mounts()]
    for directory in made:
        directory.mkdir()
    yield
    for directory in made:
        directory.rmdir()


@contextmanager
def leaked_process(_: Path) -> Iterator[None]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield
        process.kill()


@contextmanager
def leaked_namespace(_: Path) -> Iterator[None]:
    with subprocess.Popen(["unshare", "--uts", "sleep", "600"]) as process:
        yield
        process.kill()


@contextmanager
def leaked_fd(_: Path) -> Iterator[None]:
    with open("/dev/null"):
        yield


@pytest.mark.parametrize(
    ("leak", "word"),
    [
        (leaked_file, "files"),
        (leaked_mount, "mounts"),
        (leaked_loop, "loop devices"),
        (leaked_cgroup, "cgroups"),
        (leaked_process, "processes"),
        (leaked_namespace, "namespaces"),
        (leaked_fd, "fds of the tests"),
    ],
)
def test_what_stays_is_reported_under_its_name(leak: Leak, word: str, tmp_path: Path) -> None:
    scope = Scope(directories=(tmp_path,), cgroup_roots=(CGROUP,))
    with leak_check(scope), ExitStack() as kept:
        with pytest.raises(Leaked) as caught, leak_check(scope, patience_s=0.1):
            kept.enter_context(leak(tmp_path))
        assert f"  {word}:\n" in str(caught.value)


def test_a_failure_stays_the_failure_and_says_what_it_left(tmp_path: Path) -> None:
    with ExitStack() as kept:
        with (
            pytest.raises(KeyError) as caught,
            leak_check(Scope(directories=(tmp_path,)), patience_s=0.1),
        ):
            kept.enter_context(leaked_file(tmp_path))
            raise KeyError("the test's own")
        assert str(tmp_path / "left") in caught.value.__notes__[0]


def test_what_goes_a_moment_later_is_no_leak(tmp_path: Path) -> None:
    with leak_check(Scope(directories=(tmp_path,))):
        subprocess.Popen(["sh", "-c", "sleep 0.3 &"]).wait()


def test_orphans_of_the_tests_are_reaped_at_once() -> None:
    done = subprocess.run(["sh", "-c", "sleep 600 >/dev/null & echo $!"], stdout=subprocess.PIPE, text=True, check=True)
    orphan = int(done.stdout)
    assert all_processes()[orphan].parent == ancestor()
    os.kill(orphan, signal.SIGKILL)
    while orphan in all_processes():
        time.sleep(0.001)
