"""Templates: for an image and a size, a root ready to be cloned; made once, then every create is quick.

    image's VSF --clone--> larger file and table --grow (a job that is handed in)--> <digest>-<size>.vsf

Which size a container gets is decided in `sysproc.images`. Those not used for longest go first.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from weakref import WeakValueDictionary

from sysproc.failpoints import failpoint
from sysproc.storage.vsf.clone import copy_sparse, grow_table, new_file
from sysproc.storage.vsf.gpt import Partition
from sysproc.to_end import to_end

KEPT = 32
Grow = Callable[[int, Partition], Awaitable[object]]


class TemplateStore:
    """The templates of one state directory; asyncio, from one loop."""

    def __init__(self, directory: Path, grow: Grow) -> None:
        self._directory, self._grow = directory, grow
        self._making: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def get(self, digest: str, image: Path, root_bytes: int) -> Path:
        """The template for this image and size in bytes; made if it is not there. Raises ResourceExhausted."""
        target = self._directory / f"{digest}-{root_bytes}.vsf"
        lock = self._making.setdefault(target.name, asyncio.Lock())
        async with lock:
            if not target.exists():
                await self._make(image, target, root_bytes)
                await to_end(self._forget_oldest, target)
            return target

    async def _make(self, image: Path, target: Path, root_bytes: int) -> None:
        source = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with new_file(target) as fd:
                await to_end(copy_sparse, source, fd)
                gpt = grow_table(fd, root_bytes)
                failpoint("images.template.after_copy")
                await self._grow(fd, gpt.partitions[0])
                failpoint("images.template.after_grow")
        finally:
            os.close(source)

    def _forget_oldest(self, newest: Path) -> None:
        by_use = sorted(self._directory.glob("*.vsf"), key=lambda path: path.stat().st_atime)
        for path in [one for one in by_use if one != newest][: max(0, len(by_use) - KEPT)]:
            path.unlink(missing_ok=True)

    def forget(self, digest: str) -> None:
        """Remove all templates of an image."""
        for path in self._directory.glob(f"{digest}-*.vsf"):
            path.unlink(missing_ok=True)
