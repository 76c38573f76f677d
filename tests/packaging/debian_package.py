"""The Debian package, made of wheels that are there, and what Debian's tools say of it.

Its tests are in `tests.vm`: it is installed in the virtual machine.
"""

import os
import shutil
import subprocess
from pathlib import Path

from tests.packaging.distributions import ROOT, Built, quietly

COMMANDS = ("dpkg-buildpackage", "dh", "git")


def why_not() -> str:
    """Why it cannot be made here; empty if it can."""
    missing = [command for command in COMMANDS if shutil.which(command) is None]
    return f"not installed: {', '.join(missing)} (scripts/install-packages deb)" if missing else ""


def build_package(built: Built, work: Path) -> Path:
    """By what `make deb` calls."""
    quietly(ROOT / "scripts/make-deb", built.server_wheel.parent, work / "build", cwd=work)
    (package,) = built.server_wheel.parent.glob("*.deb")
    return package


def lintian(package: Path) -> list[str]:
    """What lintian has to say: errors and warnings that no override answers, overrides that answer nothing."""
    call = ["lintian", "--allow-root", "--tag-display-limit", "0", str(package)]
    done = subprocess.run(call, env={**os.environ, "LC_ALL": "C.UTF-8"}, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 2), done.stderr
    return done.stdout.splitlines()
