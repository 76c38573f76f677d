"""A Debian 12 root as a tar, with python3, our SDK and `sysproc`, and the tools of who looks after a system.

    python -m tests.debian.root     prints where it is; the first time, after a minute or so

Debian's part is built once and kept outside of the clone (`tests.debian.cache`); the SDK of this clone is added to
it in `.cache/`. Who uses it: the tests of `tests/isolation`, the demo.
"""

import os
import shutil
import sys
import tarfile
from importlib.metadata import distribution
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.debian.archive import add_distribution, files_below
from tests.debian.bootstrap import PYTHON, ROOT, bootstrap, dependencies, install_wheels, run
from tests.debian.cache import cached, fingerprint

PACKAGES = (
    *("python3", "perl", "procps", "passwd", "util-linux", "strace", "keyutils", "bubblewrap", "libcap2-bin"),
    *("iproute2", "iputils-ping", "iptables", "nftables"),
)
# Where the tar is, on a machine that cannot make one.
GIVEN = "SYSPROC_TEST_DEBIAN_ROOT"
SITE = f"usr/local/lib/python{PYTHON}/dist-packages"
SDK = ROOT / "clients/python/src"


def why_not() -> str:
    """Why it cannot be made here; empty if it can, or was given."""
    if GIVEN in os.environ:
        return ""
    if shutil.which("mmdebstrap") is None:
        return "not installed: mmdebstrap (scripts/install-packages test)"
    if os.geteuid():
        return "not root: the owners of the files could not be set"
    return ""


def build(directory: Path) -> None:
    """Debian's part, as a tar in this directory. There is nothing of this machine in it but the time."""
    with TemporaryDirectory(dir=directory, prefix="root-") as temporary:
        root = Path(temporary)
        root.chmod(0o755)
        bootstrap(root, PACKAGES)
        install_wheels(root, SITE, sorted(dependencies("clients/python")))
        shutil.rmtree(root / "var/cache/apt", ignore_errors=True)
        (root / "etc/hostname").unlink(missing_ok=True)
        (root / "etc/resolv.conf").unlink(missing_ok=True)
        archive = ("tar", "--create", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--one-file-system")
        run(*archive, "--file", directory / "root.tar", "--directory", root, ".")


def recipe() -> list[str]:
    """What Debian's part depends on."""
    texts = [(Path(__file__).parent / name).read_text() for name in ("bootstrap.py", "root.py")]
    return [*texts, *sorted(dependencies("clients/python"))]


def add_sdk(path: Path) -> None:
    """The SDK of this clone, with the generated stubs, and its command."""
    with tarfile.open(path, "a") as archive:
        for file in files_below(SDK):
            archive.add(file, f"{SITE}/{file.relative_to(SDK)}", recursive=False, filter=owned_by_root)
        add_distribution(
            archive, distribution("sysproc-client"), site=SITE, bin="usr/local/bin", python="/usr/bin/python3"
        )


def owned_by_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Whoever has the clone."""
    entry.uid = entry.gid = 0
    return entry


def debian_root() -> Path:
    """The tar as it should be now, or the one that was given. Raises RuntimeError if it cannot be made here."""
    if GIVEN in os.environ:
        return Path(os.environ[GIVEN])
    if reason := why_not():
        raise RuntimeError(reason)
    base = cached("debian-root", recipe(), build) / "root.tar"
    sdk = fingerprint([str(base), *(file.read_bytes() for file in files_below(SDK) if file.is_file())])
    wanted = ROOT / ".cache" / f"debian-root-{sdk}.tar"
    if not wanted.exists():
        for old in wanted.parent.glob("debian-root-*"):
            old.unlink(missing_ok=True)
        unfinished = wanted.with_suffix(f".{os.getpid()}")
        unfinished.parent.mkdir(exist_ok=True)
        shutil.copyfile(base, unfinished)
        add_sdk(unfinished)
        unfinished.replace(wanted)
    return wanted


if __name__ == "__main__":
    sys.stdout.write(f"{debian_root()}\n")
