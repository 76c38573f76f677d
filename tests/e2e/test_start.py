"""How `sysprocd` says that it cannot start: in one line with what to do, and nothing is left of it.

Two daemons that are in each other's way are in `tests.e2e.test_daemons`.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.daemon import RunningDaemon, cgroup_tops

READ_ONLY = "/sys/kernel"
SYSPROCD = str(Path(sys.executable).with_name("sysprocd"))


@pytest.fixture
def would_be() -> Iterator[RunningDaemon]:
    """One that is never started by itself; its directory holds a file and nothing else."""
    daemon = RunningDaemon()
    (daemon.directory / "file").touch()
    yield daemon
    (daemon.directory / "file").unlink()
    assert list(daemon.directory.iterdir()) == [], "nothing is left"
    assert cgroup_tops(daemon.cgroup_root) == []
    daemon.directory.rmdir()


@pytest.mark.parametrize("option", ["state-dir", "runtime-dir", "uid-claims"])
@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("{directory}/file", "file is no directory"),
        ("{directory}/file/below", "file is no directory"),
        ("/proc/self/fd/nosuch", "No such file or directory"),
        (f"{READ_ONLY}/nosuch", "Operation not permitted"),
    ],
)
def test_a_directory_that_cannot_be_used_is_named_and_nothing_is_left(
    would_be: RunningDaemon, option: str, path: str, word: str
) -> None:
    path = path.format(directory=would_be.directory)
    lines = refused(would_be, f"--{option}={path}")
    assert len(lines) == 1 and path in lines[0] and f"--{option}" in lines[0] and word in lines[0]


@pytest.mark.parametrize("option", ["--runtime-dir={}", "--listen=unix://{}"])
def test_a_path_that_is_too_long_for_a_socket_is_named(would_be: RunningDaemon, option: str) -> None:
    path = f"{would_be.directory}/".ljust(110, "x")
    lines = refused(would_be, option.format(path))
    assert len(lines) == 1 and path in lines[0] and option.split("=", maxsplit=1)[0] in lines[0]


def test_a_database_that_is_none_is_named_and_no_cgroup_is_left(would_be: RunningDaemon, tmp_path: Path) -> None:
    (tmp_path / "sysproc.db").write_text("no database, but quite some text of another kind")
    (line,) = refused(would_be, f"--state-dir={tmp_path}")
    assert f"{tmp_path}/sysproc.db" in line
    would_be.runtime_dir.joinpath("private").rmdir()
    would_be.runtime_dir.rmdir()
    would_be.uid_claims.rmdir()


def refused(daemon: RunningDaemon, option: str) -> list[str]:
    """The lines that it says when it ends with 1."""
    done = subprocess.run([*daemon.command(), option], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    return done.stderr.splitlines()


def test_what_cannot_be_listened_on_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    daemon = RunningDaemon(options=(f"--listen=unix://{tmp_path}/file/below",))
    try:
        done = subprocess.run(daemon.command(), capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert "Cannot listen on" in done.stderr and "Traceback" not in done.stderr
        assert cgroup_tops(daemon.cgroup_root) == []
    finally:
        daemon.close()


def test_the_version_is_said() -> None:
    done = subprocess.run([SYSPROCD, "--version"], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("sysprocd 0.")
