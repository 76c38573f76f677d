"""Parts of the archives that tests make: files that exist nowhere else, and distributions as pip would install them.

Which archive gets which of them is in `tests.debian.root` and `tests.vm.payload`.
"""

import io
import tarfile
from collections.abc import Iterator
from importlib.metadata import Distribution
from pathlib import Path


def files_below(tree: Path) -> Iterator[Path]:
    """All files, in order, generated ones included, but no caches."""
    return (path for path in sorted(tree.rglob("*")) if "__pycache__" not in path.parts)


def add_text(archive: tarfile.TarFile, name: str, text: str, mode: int = 0o644) -> None:
    """One file that exists only in the archive."""
    content = text.encode()
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def metadata_files(of: Distribution) -> dict[str, str]:
    """The metadata of an installed distribution: what `importlib.metadata` reads."""
    name = f"{of.name.replace('-', '_')}-{of.version}.dist-info"
    return {f"{name}/{file}": of.read_text(file) or "" for file in ("METADATA", "entry_points.txt")}


def commands(of: Distribution, python: str) -> dict[str, str]:
    """The commands that pip would make for a distribution."""
    points = (point for point in of.entry_points if point.group == "console_scripts")
    return {
        point.name: f"#!{python}\nimport sys\nfrom {point.module} import {point.attr}\nsys.exit({point.attr}())\n"
        for point in points
    }


def add_distribution(archive: tarfile.TarFile, of: Distribution, *, site: str, bin: str, python: str) -> None:
    """Metadata and commands; the modules are where the archive has them."""
    for inside, text in metadata_files(of).items():
        add_text(archive, f"{site}/{inside}", text)
    for command, text in commands(of, python).items():
        add_text(archive, f"{bin}/{command}", text, 0o755)
