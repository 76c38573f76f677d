"""Templates: files that are made once and cloned from then on, by name; those not used for longest go first.

    <digest>-<size>.vsf    the root of a container, of this image and size     `sysproc.images`
    <size>.ext4            an empty filesystem of this size                    `sysproc.volume_files`

How one is made is handed in: a function that fills an unnamed file, which gets its name when it is complete.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from weakref import WeakValueDictionary

from sysproc.storage.vsf.clone import new_file
from sysproc.to_end import to_end

KEPT = 32
Fill = Callable[[int], Awaitable[object]]


class TemplateStore:
    """The templates with one ending in a directory; asyncio, from one loop."""

    def __init__(self, directory: Path, ending: str) -> None:
        self._directory, self._ending = directory, ending
        self._making: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def has(self, name: str) -> bool:
        """Whether it is there at this moment."""
        return self.path(name).exists()

    def path(self, name: str) -> Path:
        """Where it is, if it is there."""
        return self._directory / f"{name}{self._ending}"

    async def get(self, name: str, fill: Fill) -> Path:
        """The template of this name; made if it is not there. Raises ResourceExhausted."""
        target = self.path(name)
        lock = self._making.setdefault(target.name, asyncio.Lock())
        async with lock:
            if not target.exists():
                with new_file(target) as fd:
                    await fill(fd)
                await to_end(self._forget_oldest, target)
            return target

    def _forget_oldest(self, newest: Path) -> None:
        by_use = sorted(self._directory.glob(f"*{self._ending}"), key=lambda path: path.stat().st_atime)
        for path in [one for one in by_use if one != newest][: max(0, len(by_use) - KEPT)]:
            path.unlink(missing_ok=True)

    def forget(self, beginning: str) -> None:
        """Remove all templates whose names begin so."""
        for path in self._directory.glob(f"{beginning}*{self._ending}"):
            path.unlink(missing_ok=True)
