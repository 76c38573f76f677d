"""Debian trees by mmdebstrap: from this machine's own mirror, with Python packages for the Python inside.

What is in a tree is the business of who wants it: `tests.debian.root`, `tests.vm.image`. How a result is kept is in
`tests.debian.cache`.
"""

import platform
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

SUITE = "bookworm"
PYTHON = "3.11"
# Nobody reads them there.
LEFT_OUT = ("doc", "man", "locale")


def run(*command: str | Path) -> None:
    """Run a step of a build; what it says is in the error if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{done.stdout[-4000:]}")


def apt_sources() -> Iterator[tuple[str, list[str]]]:
    """What this machine installs from: the first URI and the suites of each source."""
    for file in Path("/etc/apt").glob("sources.list.d/*.sources"):
        for paragraph in file.read_text().split("\n\n"):
            fields = dict(line.split(":", 1) for line in paragraph.splitlines() if ":" in line and line[0] != "#")
            yield fields.get("URIs", "").strip().split(" ")[0], fields.get("Suites", "").split()
    for file in Path("/etc/apt").glob("sources.list"):
        for line in file.read_text().splitlines():
            if line.startswith("deb ") and len(words := line.split("]")[-1].removeprefix("deb ").split()) > 1:
                yield words[0], words[1:2]


def mirror() -> str:
    """The mirror that this machine uses for the suite, if it is a Debian of the same one."""
    return next((uri for uri, suites in apt_sources() if uri and SUITE in suites), "http://deb.debian.org/debian")


def bootstrap(root: Path, packages: Iterable[str]) -> None:
    """A minimal Debian tree with these packages."""
    options = [f"--include={','.join(packages)}", '--aptopt=Acquire::Languages "none"']
    options += [f"--dpkgopt=path-exclude=/usr/share/{what}/*" for what in LEFT_OUT]
    run("mmdebstrap", "--mode=root", "--variant=minbase", *options, SUITE, root, mirror())


def dependencies(project: str, *, extra: str = "") -> set[str]:
    """What a distribution of this repository depends on, less its siblings; with one group of the optional ones."""
    table = tomllib.loads((ROOT / project / "pyproject.toml").read_text())["project"]
    wanted = [*table["dependencies"], *(table["optional-dependencies"][extra] if extra else ())]
    return {item for item in wanted if not item.startswith("sysproc")}


def install_wheels(root: Path, site: str, requirements: Iterable[str]) -> None:
    """Python packages, below `site` in the tree, compiled.

    pip runs out here, where its configuration and certificates are, and takes wheels for the Python inside.
    """
    platforms = [f"--platform=manylinux_2_{minor}_{platform.machine()}" for minor in range(17, 37)]
    wheels = ("--only-binary=:all:", "--implementation=cp", f"--python-version={PYTHON}", *platforms)
    run(sys.executable, "-m", "pip", "install", "--quiet", "--target", root / site, *wheels, *requirements)
    run("chroot", root, "python3", "-m", "compileall", "-q", "-j2", f"/{site}", f"/usr/lib/python{PYTHON}")
