"""The wheels in a virtual environment of their own: no compiler, no clone, nothing but what pip put there."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from sysproc_client import Client
from sysproc_client.version import VERSION
from tests.e2e.daemon import RunningDaemon
from tests.leaks import leak_check
from tests.packaging.distributions import Built, Installed, pip, quietly

# The first test waits for compilers and downloads.
pytestmark = pytest.mark.timeout(600)


class InstalledDaemon(RunningDaemon):
    """The sysprocd of a virtual environment."""

    def __init__(self, installed: Installed) -> None:
        super().__init__(environment={"PATH": installed.path, "HOME": str(installed.directory)})
        self._command = installed.command("sysprocd")

    def command(self) -> list[str]:
        """As always, but that one."""
        return [str(self._command), *super().command()[1:]]


@pytest.fixture
def daemon(installed: Installed, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningDaemon]:
    """It runs, and was not started in the clone."""
    monkeypatch.chdir(installed.directory)
    with InstalledDaemon(installed) as running, Client(running.endpoint) as client:
        client.create(image="busybox").destroy()  # what it opens once and keeps is open
        with leak_check(running.scope()):
            yield running
            running.destroy_all()


def test_there_is_no_compiler(installed: Installed) -> None:
    """Or the other tests here would not say much."""
    assert [name for name in ("cc", "gcc", "g++", "clang", "ld") if shutil.which(name, path=installed.path)] == []
    assert shutil.which("busybox", path=installed.path)


def test_what_is_installed_fits_together(installed: Installed) -> None:
    pip(installed, "check")


def test_both_commands_say_their_version(installed: Installed) -> None:
    assert installed.run("sysprocd", "--version") == f"sysprocd {VERSION}\n"
    assert installed.run("sysproc", "--version") == f"sysproc {VERSION}\n"
    # No service there: it says so, and its own version all the same.
    missing = installed.run_bytes("sysproc", "--endpoint", f"unix://{installed.directory}/none.sock", "version")
    assert VERSION.encode() in missing.stdout


def test_every_module_is_the_installed_one(installed: Installed) -> None:
    program = "import nightos.sysproc.v1.volume_pb2_grpc as a, sysproc.server.wiring as b, sysproc_client.aio as c\n"
    program += "print(a.__file__, b.__file__, c.__file__, sep='\\n')"
    for path in installed.run("python", "-I", "-c", program).split():
        assert Path(path).is_relative_to(installed.directory / "venv")


def test_its_daemon_makes_a_container_and_runs_a_command_in_it(installed: Installed, daemon: RunningDaemon) -> None:
    def sysproc(*words: str) -> str:
        return installed.run("sysproc", "--endpoint", daemon.endpoint, *words)

    sysproc("create", "--name", "web", "--memory", "64M")
    assert sysproc("exec", "web", "--", "sh", "-c", "echo $((6 * 7)) in $(hostname)") == "42 in web\n"
    assert VERSION in sysproc("version")
    executable = Path(f"/proc/{daemon.launcher_pid}/cmdline").read_bytes().split(b"\0")[0].decode()
    assert Path(executable).is_relative_to(installed.directory)


def test_pipx_runs_the_command_out_of_its_wheel(built: Built, tmp_path: Path) -> None:
    own = {"PIPX_HOME": f"{tmp_path}/home", "PIPX_BIN_DIR": f"{tmp_path}/bin", "PIPX_MAN_DIR": f"{tmp_path}/man"}
    call: list[str | Path] = [pipx_in(tmp_path), "run", "--spec", built.client_wheel, "sysproc", "--version"]
    says_its_version(call, tmp_path, {**os.environ, **own})
    assert [*(tmp_path / "home").rglob("sysproc_client")], "it was run from elsewhere"


def test_uvx_runs_the_command_out_of_its_wheel(built: Built, tmp_path: Path) -> None:
    if shutil.which("uvx") is None:
        pytest.skip("uvx is not installed")
    says_its_version(["uvx", "--from", built.client_wheel, "sysproc", "--version"], tmp_path, os.environ)


def pipx_in(directory: Path) -> Path:
    """pipx in a virtual environment there: what is installed of it on this machine is left alone."""
    venv = directory / "pipx"
    quietly(sys.executable, "-m", "venv", "--without-pip", venv, cwd=directory)
    call: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        venv / "bin/python",
        "install",
        "--quiet",
        "pipx",
    ]
    done = subprocess.run(call, capture_output=True, text=True, timeout=170, check=False)
    if done.returncode:
        pytest.skip(f"pip gets no pipx here: {done.stderr.strip().splitlines()[-1]}")
    return venv / "bin/pipx"


def says_its_version(call: Sequence[str | Path], directory: Path, environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        call, env=environment, cwd=directory, capture_output=True, text=True, timeout=170, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"sysproc {VERSION}\n"), done.stderr
