"""What the virtual machine is to run: this tree as a tar, with the command to run in it.

The tree is as people install it: the same modules, the generated stubs, the C program, the metadata of both
distributions, their commands. How it gets in and its results out is in `tests.vm.machine`.
"""

import shlex
import tarfile
from collections.abc import Iterator, Sequence
from importlib.metadata import distribution
from pathlib import Path

from tests.compiled import compile_all
from tests.debian.archive import add_distribution, add_text, files_below
from tests.debian.bootstrap import ROOT
from tests.vm.image import SITE, VENV

TREES = ("sysproc", "clients/python/src", "tests", "pyproject.toml", "proto", "examples", "packaging")
PATHS = ("/opt/sysproc/tree", "/opt/sysproc/tree/clients/python/src")


def tree_files() -> Iterator[Path]:
    """All files of the tree that are needed inside, generated ones included."""
    for tree in TREES:
        path = ROOT / tree
        yield from [path] if path.is_file() else files_below(path)


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
            add_distribution(archive, distribution(name), site=site, bin=bin_directory, python=f"/{VENV}/bin/python")
