"""A Debian 12 minbase as a tree of files, made by debootstrap: what many have lying about, device nodes included.

Nothing is asked of a mirror once it is cached (`tests.debian.cache`). mmdebstrap's is `tests.debian.plain_root`.
"""

import os
import shutil
from inspect import getsource
from pathlib import Path

from tests.debian.bootstrap import SUITE, mirror, run
from tests.debian.cache import cached


def why_not() -> str:
    """Why it cannot be made here; empty if it can."""
    if shutil.which("debootstrap") is None:
        return "not installed: debootstrap (scripts/install-packages test)"
    return "not root: the owners of the files could not be set" if os.geteuid() else ""


def build(directory: Path) -> None:
    """The tree. What debootstrap mounts in it is gone with its namespace."""
    run("unshare", "--mount", "debootstrap", "--variant=minbase", SUITE, directory / "root", mirror())


def debootstrap_tree() -> Path:
    """Where it is; the first time, after a minute or so."""
    return cached("debootstrap", [getsource(build), SUITE], build) / "root"
