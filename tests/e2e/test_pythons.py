"""The client's wheel, in a bare virtual environment of every Python that it supports and that is installed here."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.e2e.daemon import RunningDaemon
from tests.lint.sources import ROOT

CLIENT = ROOT / "clients/python"
PROGRAM = Path(__file__).with_name("using_the_client.py")
MINORS = (10, 11, 12, 13)
SAID = """\
UTC b'hello' b'out\\nin\\n' 0 ['running']
True []
b'hello' b'out\\nin\\n' 0 ['running']
cancelled [[b'init']]
COMMAND_TIMEOUT
"""


# All modules but those of `sysproc cert`, whose library is an extra.
IMPORT_ALL = """
import importlib, pkgutil, sysproc_client
for one in pkgutil.walk_packages(sysproc_client.__path__, "sysproc_client."):
    if "certificates" not in one.name:
        importlib.import_module(one.name)
"""


def python(minor: int) -> Path:
    """The interpreter of this version; a visible skip where there is none."""
    versions = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    found = shutil.which(f"python3.{minor}")
    for path in ([Path(found)] if found else []) + sorted(versions.glob(f"3.{minor}.*/bin/python")):
        if subprocess.run([path, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
            return path
    pytest.skip(f"there is no Python 3.{minor} here")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as a release is, with the tools that are installed."""
    directory = tmp_path_factory.mktemp("wheel")
    build: list[str | Path] = [
        Path(sys.executable).with_name("hatchling"),
        "build",
        "--target",
        "wheel",
        "--directory",
        str(directory),
    ]
    subprocess.run(build, cwd=CLIENT, check=True, capture_output=True)
    return next(directory.glob("*.whl"))


def installed(minor: int, wheel: Path, directory: Path) -> Path:
    """An interpreter with the wheel and what it depends on; a visible skip where the index is out of reach."""
    subprocess.run([python(minor), "-m", "venv", str(directory)], check=True, capture_output=True)
    pip: list[str | Path] = [directory / "bin/python", "-m", "pip", "--disable-pip-version-check", "--quiet"]
    done = subprocess.run([*pip, "install", wheel], capture_output=True, text=True, check=False)
    if "Failed to establish a new connection" in done.stderr or "Name or service not known" in done.stderr:
        pytest.skip("no index of packages can be reached")
    assert done.returncode == 0, done.stderr
    subprocess.run([*pip, "check"], check=True)
    return directory / "bin/python"


def test_what_is_tested_is_what_the_distribution_says() -> None:
    assert tomllib.loads((CLIENT / "pyproject.toml").read_text())["project"]["requires-python"] == f">=3.{MINORS[0]}"


@pytest.mark.slow
@pytest.mark.parametrize("minor", MINORS)
def test_a_program_of_a_user_runs(minor: int, wheel: Path, tmp_path: Path, daemon: RunningDaemon) -> None:
    interpreter = installed(minor, wheel, tmp_path / "venv")
    subprocess.run([interpreter, "-W", "error", "-c", IMPORT_ALL], check=True)
    call: list[str | Path] = [interpreter, "-W", "error", PROGRAM, daemon.endpoint]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr) == (SAID, "")


@pytest.mark.slow
@pytest.mark.parametrize("minor", MINORS)
def test_the_same_program_is_well_typed(minor: int, wheel: Path, tmp_path: Path) -> None:
    """As its author would check it: with the types of what is installed, and no settings of ours."""
    interpreter = installed(minor, wheel, tmp_path / "venv")
    mypy = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--python-executable={interpreter}"]
    done = subprocess.run(
        [*mypy, f"--cache-dir={tmp_path}/cache", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
