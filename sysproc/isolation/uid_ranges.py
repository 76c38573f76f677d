"""Ranges of uids for running containers: 65,536 each, never two containers in one, whatever daemon they are of.

    <claims>/<slot>      one file a range in use; holds the owner (state directory and container) and the boot
    claim                a slot at random, O_EXCL: constant time, however many there are
    release, reclaim     the file is removed; one of an earlier boot counts for nothing

The directory is shared by all daemons of the host. Which container has which range is recorded by the caller.
"""

import os
import random
from dataclasses import dataclass
from pathlib import Path

from sysproc.errors import ResourceExhausted

SIZE = 65536
_RANDOM_TRIES = 32


@dataclass(frozen=True)
class UidRange:
    """The first uid (and gid) on the host, and how many there are."""

    base: int
    size: int = SIZE


class UidRanges:
    """The ranges first, first + 65536, … for so many containers."""

    def __init__(self, directory: Path, first: int, count: int) -> None:
        self._directory, self._first, self._count = directory, first, count
        self._boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)

    def claim(self, owner: str) -> UidRange:
        """A range that nobody has, for this owner. Raises ResourceExhausted when all are in use."""
        for slot in self._candidates():
            if self._take(slot, owner):
                return UidRange(self._first + slot * SIZE)
        raise ResourceExhausted(
            f"All {self._count} uid ranges of this host are in use.",
            resolution="Stop or destroy containers, or give the service more with --uid-range.",
            reason="NO_UID_RANGE",
        )

    def _candidates(self) -> list[int]:
        """A few at random, then all in order: quick while most are free, right when few are."""
        return [random.randrange(self._count) for _ in range(_RANDOM_TRIES)] + list(range(self._count))

    def _path(self, slot: int) -> Path:
        return self._directory / f"{self._first + slot * SIZE}"

    def _take(self, slot: int, owner: str) -> bool:
        path = self._path(slot)
        if path.exists() and self._stale(path):
            path.unlink(missing_ok=True)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            return False
        with open(fd, "w") as file:
            file.write(f"{self._boot}\n{owner}\n")
        return True

    def _stale(self, path: Path) -> bool:
        """Whether it was claimed before this boot; a file that is being written is not stale."""
        text = _read(path)
        return bool(text) and not text.startswith(self._boot)

    def release(self, claimed: UidRange) -> None:
        """Give a range back; idempotent."""
        (self._directory / str(claimed.base)).unlink(missing_ok=True)

    def reclaim(self, owner: str) -> None:
        """Give back whatever this owner has; for a container that has ended, whoever noticed."""
        for path in self._directory.iterdir():
            if path.name.isdigit() and _read(path).endswith(f"\n{owner}\n"):
                path.unlink(missing_ok=True)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
