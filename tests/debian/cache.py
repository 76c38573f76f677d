"""What takes minutes to build is kept outside of the clone, so that clones share it.

    cached("debian-12", recipe, build)  ->  <cache>/debian-12-<digest of the recipe>/

Anything may be kept so; what is built, and from what, is in `tests.debian.root` and `tests.vm.image`.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_directory() -> Path:
    """SYSPROC_VM_CACHE, or below the user's cache."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sysproc" / "vm"
    return Path(os.environ.get("SYSPROC_VM_CACHE") or default)


def fingerprint(recipe: Iterable[str | bytes]) -> str:
    """Changes whenever something else would be built (but not when Debian has updates)."""
    parts = (part.encode() if isinstance(part, str) else part for part in recipe)
    return hashlib.sha256(b"\n".join(parts)).hexdigest()[:12]


@contextmanager
def locked(directory: Path, name: str) -> Iterator[None]:
    """One build of a kind at a time, also of several clones."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def cached(name: str, recipe: Iterable[str | bytes], build: Callable[[Path], None]) -> Path:
    """The directory as it should be now: as it was kept, or built, in which case older ones are removed."""
    cache = cache_directory()
    wanted = cache / f"{name}-{fingerprint(recipe)}"
    with locked(cache, name):
        if not wanted.exists():
            for old in cache.glob(f"{name}-*"):
                shutil.rmtree(old)
            building = cache / f"{name}-building-{os.getpid()}"
            building.mkdir()
            build(building)
            building.rename(wanted)
    return wanted
