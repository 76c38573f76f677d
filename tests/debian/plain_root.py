"""A Debian 12 minbase as somebody would import it: the tar that mmdebstrap writes, with nothing of ours in it.

    python -m tests.debian.plain_root     prints where it is; the first time, after a minute or so

Beside it, the same compressed in each way, and in `debs/` the packages of services, with what they depend on, for a
repository of files: nothing is asked of a mirror once it is cached (`tests.debian.cache`). The root with our SDK is
made in `tests.debian.root`.
"""

import gzip
import lzma
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from inspect import getsource
from pathlib import Path
from typing import Any

import zstandard

from tests.debian.bootstrap import LEFT_OUT, SUITE, mirror, run
from tests.debian.cache import cached

PACKAGES = ("perl", "procps", "passwd", "libcap2-bin", "acl", "attr", "iputils-ping")
SERVICES = ("nginx-light", "postgresql")
# Run by mmdebstrap on this machine; "$1" is the tree.
DOWNLOAD = (
    'rm -f "$1"/var/cache/apt/archives/*.deb && '
    "APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get --yes --download-only --no-install-recommends install {services} "
    '&& mkdir {debs} && mv "$1"/var/cache/apt/archives/*.deb {debs}/'
)
OF_THIS_MACHINE = 'rm -f "$1/etc/resolv.conf" "$1/etc/hostname"'
PACKERS: Mapping[str, Callable[[Path], Any]] = {
    "gz": partial(gzip.open, mode="wb", compresslevel=1),
    "xz": partial(lzma.open, mode="wb", preset=0),
    "zst": partial(zstandard.open, mode="wb"),
}


def why_not() -> str:
    """Why it cannot be made here; empty if it can."""
    if shutil.which("mmdebstrap") is None:
        return "not installed: mmdebstrap (scripts/install-packages test)"
    return "not root: the owners of the files could not be set" if os.geteuid() else ""


def hooks(directory: Path) -> Iterator[str]:
    """What is done in the finished tree."""
    yield DOWNLOAD.format(services=" ".join(SERVICES), debs=directory / "debs")
    yield OF_THIS_MACHINE


def build(directory: Path) -> None:
    """The tar, and the packages beside it."""
    options = [f"--include={','.join(PACKAGES)}", '--aptopt=Acquire::Languages "none"']
    options += [f"--dpkgopt=path-exclude=/usr/share/{what}/*" for what in LEFT_OUT]
    options += [f"--customize-hook={hook}" for hook in hooks(directory)]
    run("mmdebstrap", "--mode=root", "--variant=minbase", *options, SUITE, directory / "root.tar", mirror())
    for suffix, pack in PACKERS.items():
        with (directory / "root.tar").open("rb") as plain, pack(directory / f"root.tar.{suffix}") as packed:
            shutil.copyfileobj(plain, packed, 1 << 20)


def directory() -> Path:
    """Where both are. Raises RuntimeError if they cannot be made here."""
    if reason := why_not():
        raise RuntimeError(reason)
    return cached("debian-plain", [SUITE, *PACKAGES, *SERVICES, DOWNLOAD, OF_THIS_MACHINE, getsource(build)], build)


def plain_root(suffix: str = "") -> Path:
    """The tar; suffix: of how it is compressed."""
    return directory() / ("root.tar" + (f".{suffix}" if suffix else ""))


def debs() -> Path:
    """The packages of services."""
    return directory() / "debs"


if __name__ == "__main__":
    sys.stdout.write(f"{plain_root()}\n")
