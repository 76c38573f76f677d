"""Building both distributions out of a clone, and installing them as somebody would who has only the wheels.

What is expected of them is in the tests; which of it is shared by them, in the conftest.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECTS = (".", "clients/python")
# What compiles and links: gcc-12, x86_64-linux-gnu-gcc, c++, clang, …
COMPILERS = re.compile(r"(^|-)(cc|c\+\+|c[89]9|gcc|g\+\+|cpp|clang|clang\+\+|tcc|ld|as)([-.][\w.]+)?$")


@dataclass(frozen=True)
class Built:
    """The four files."""

    server_wheel: Path
    client_wheel: Path
    server_sdist: Path
    client_sdist: Path

    @property
    def wheels(self) -> tuple[Path, Path]:
        """What people install."""
        return self.server_wheel, self.client_wheel


@dataclass(frozen=True)
class Installed:
    """A virtual environment; its commands run elsewhere than in the clone, and find no compiler."""

    directory: Path
    path: str

    def command(self, name: str) -> Path:
        """One of its commands."""
        return self.directory / "venv/bin" / name

    def run(self, name: str, *arguments: str, check: bool = True) -> str:
        """Run one; its output. What it complains of is in the error."""
        done = self.run_bytes(name, *arguments)
        assert not check or done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def run_bytes(self, name: str, *arguments: str, input: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        """Run one, whatever becomes of it."""
        call = [str(self.command(name)), *arguments]
        environment = {"PATH": self.path, "HOME": str(self.directory), "LANG": "C.UTF-8"}
        return subprocess.run(
            call, input=input, env=environment, cwd=self.directory, capture_output=True, timeout=120, check=False
        )


def quietly(*command: str | Path, cwd: Path) -> None:
    """Run a step; what it says is in the error if it fails."""
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout


def copy_clone(directory: Path) -> None:
    """The files that git has or would have, as they are now."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("what belongs to a clone only git knows: git is not installed, or this is no clone")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, directory / name)


def build(clone: Path, out: Path) -> Built:
    """All four, by what `make wheels` calls."""
    for project in PROJECTS:
        quietly(sys.executable, "-m", "hatchling", "build", "--directory", out, cwd=clone / project)
    found = (next(out.glob(f"{name}-*{end}")) for end in (".whl", ".tar.gz") for name in ("sysproc", "sysproc_client"))
    return Built(*found)


def build_from_sdist(sdist: Path, out: Path) -> Path:
    """A wheel of a source distribution, with the build's tools that are installed here."""
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--no-cache-dir")
    quietly(sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", out, sdist, cwd=out)
    (wheel,) = out.glob("*.whl")
    return wheel


def install(built: Built, directory: Path) -> Installed:
    """Both wheels and, from pip's index, what they need; all as wheels."""
    quietly(sys.executable, "-m", "venv", "--without-pip", directory / "venv", cwd=directory)
    result = Installed(directory, f"{directory / 'venv/bin'}:{directory / 'bin'}")
    link_tools(directory / "bin")
    pip(result, "install", "--quiet", "--only-binary=:all:", *map(str, built.wheels))
    return result


def pip(into: Installed, *arguments: str) -> None:
    """pip of here, on that environment, which has none of its own."""
    quietly(sys.executable, "-m", "pip", "--python", into.command("python"), *arguments, cwd=into.directory)


def link_tools(directory: Path) -> None:
    """Everything that this machine has on its PATH, less what compiles."""
    directory.mkdir()
    for place in ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"):
        for tool in Path(place).glob("*"):
            link = directory / tool.name
            if not COMPILERS.search(tool.name) and not os.path.lexists(link):
                link.symlink_to(tool)


def names_in(archive: Path) -> set[str]:
    """The files of a wheel or source distribution; in the latter without the directory that holds all."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return set(wheel.namelist())
    with tarfile.open(archive) as sdist:
        return {name.partition("/")[2] for name in sdist.getnames()}
