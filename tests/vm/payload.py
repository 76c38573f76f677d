"""What the virtual machine is to run: this tree as a tar, with the command to run in it.

The tree is as people install it: the same modules, the generated stubs, the C program, the metadata of both
distributions, their commands. How it gets in and its results out is in `tests.vm.machine`.
"""

import io
import shlex
import tarfile
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, distribution
from pathlib import Path

from tests.compiled import compile_all
from tests.vm.image import ROOT, SITE, VENV

TREES = ("sysproc", "clients/python/src", "tests", "pyproject.toml", "proto", "examples", "packaging")
PATHS = ("/opt/sysproc/tree", "/opt/sysproc/tree/clients/python/src")


def is_wanted(path: Path) -> bool:
    """Everything but caches."""
    return "__pycache__" not in path.parts


def tree_files() -> Iterator[Path]:
    """All files of the tree that are needed inside, generated ones included."""
    for tree in TREES:
        path = ROOT / tree
        yield from [path] if path.is_file() else (file for file in sorted(path.rglob("*")) if is_wanted(file))


def metadata_files(of: Distribution) -> dict[str, str]:
    """The metadata of an installed distribution: what `importlib.metadata` reads."""
    name = f"{of.name.replace('-', '_')}-{of.version}.dist-info"
    return {f"{name}/{file}": of.read_text(file) or "" for file in ("METADATA", "entry_points.txt")}


def commands(of: Distribution) -> dict[str, str]:
    """The commands that pip would make for a distribution."""
    points = (point for point in of.entry_points if point.group == "console_scripts")
    return {
        point.name: f"#!/{VENV}/bin/python\nimport sys\nfrom {point.module} import {point.attr}\n"
        f"sys.exit({point.attr}())\n"
        for point in points
    }


def add_text(archive: tarfile.TarFile, name: str, text: str, mode: int = 0o644) -> None:
    """One file that exists only in the archive."""
    content = text.encode()
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def write_payload(path: Path, arguments: Sequence[str]) -> None:
    """Write the tar that `tests.vm.image.UNIT` unpacks; `arguments` are those of `python -m tests`."""
    site, bin_directory = (str(Path(inside).relative_to("opt/sysproc")) for inside in (SITE, f"{VENV}/bin"))
    with tarfile.open(path, "w") as archive:
        for file in tree_files():
            archive.add(file, f"tree/{file.relative_to(ROOT)}", recursive=False)
        for program in compile_all():
            archive.add(program, f"tree/{program.relative_to(ROOT)}", recursive=False)
        add_text(archive, "run", f"exec sh /opt/sysproc/tree/tests/vm/inside.sh {shlex.join(arguments)}\n")
        add_text(archive, f"{site}/sysproc.pth", "".join(f"{line}\n" for line in PATHS))
        for name in ("sysproc", "sysproc-client"):
            installed = distribution(name)
            for inside, text in metadata_files(installed).items():
                add_text(archive, f"{site}/{inside}", text)
            for command, text in commands(installed).items():
                add_text(archive, f"{bin_directory}/{command}", text, 0o755)
