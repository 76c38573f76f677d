"""One destruction of a subtree: what is doomed, what is gone, and everybody who watches it.

    begin (all rows are marked in one transaction: from here on nothing of it can be used)
      -> the kernel kills the whole subtree by its top cgroup, frozen or not
      -> per member, deepest first: init gone, cgroups, uid range, files, row           -> Destroyed
      -> the last one                                                                    -> done

A caller that goes away changes nothing: the daemon's task group owns the work, callers only watch.
Only the record of the progress belongs here; the work is in `sysproc.cascade`.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

from sysproc.errors import Unavailable
from sysproc.storage.hierarchy import ContainerRow


class Destruction:
    """The progress of one destruction; any number of callers may watch it, from its beginning."""

    def __init__(self, doomed: Sequence[ContainerRow]) -> None:
        self.doomed = tuple(doomed)
        self.ids = frozenset(row.id for row in doomed)
        self._gone: list[ContainerRow] = []
        self._stuck: list[tuple[ContainerRow, str]] = []
        self._over = False
        self._changed = asyncio.Condition()

    async def report(self, gone: Sequence[ContainerRow], stuck: Sequence[tuple[ContainerRow, str]] = ()) -> None:
        """Record members that are gone for good, and members that could not be taken apart, with why."""
        async with self._changed:
            self._gone.extend(gone)
            self._stuck.extend(stuck)
            self._changed.notify_all()

    async def finish(self) -> None:
        """Nothing more will be reported."""
        async with self._changed:
            self._over = True
            self._changed.notify_all()

    async def watch(self) -> AsyncIterator[ContainerRow]:
        """Each member as it goes, deepest first. Raises Unavailable at the end if members are stuck."""
        seen = 0
        while fresh := await self._after(seen):
            for row in fresh:
                yield row
            seen += len(fresh)
        if self._stuck:
            raise self._stuck_error()

    async def _after(self, seen: int) -> list[ContainerRow]:
        """Wait for more; an empty list when it is over."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._gone) > seen or self._over)
            return self._gone[seen:]

    def _stuck_error(self) -> Unavailable:
        names = "; ".join(f"{row.id:016x}: {why}" for row, why in self._stuck)
        return Unavailable(
            f"{len(self.doomed) - len(self._gone)} of {len(self.doomed)} containers could not be destroyed yet.",
            details=f"{names}. What is above them stays as well.",
            resolution="Destroy again; the service also tries again when it starts.",
            reason="DESTROY_INCOMPLETE",
        )
