"""In which order the members of a dying subtree are taken apart: the deepest first, and nobody waits for a stuck one.

    ended --------> its turn comes when nothing is below it any more, and nothing deeper is left
    overdue() ----> the second no longer counts: what does not end holds up only what stands above it
    failed -------> it stays, and all above it stay; the others go on

Only the arithmetic belongs here. What is done in a turn is in `sysproc.take_apart`, when it comes in
`sysproc.cascade`.
"""

from collections import Counter
from collections.abc import Sequence
from heapq import heappop, heappush

from sysproc.storage.hierarchy import ContainerRow


class DeepestFirst:
    """The members of one subtree that are still there; each call costs what it returns, not what there is."""

    def __init__(self, doomed: Sequence[ContainerRow]) -> None:
        """doomed: deepest first, the top last."""
        self._rows = {row.id: row for row in doomed}
        self._depth = depths_of(doomed)
        self._left = Counter(self._depth.values())
        self._below = Counter(row.parent_id for row in doomed)
        self._waiting = set(self._rows)
        self._turn = {row.id: number for number, row in enumerate(doomed)}
        self._ready: list[tuple[int, int]] = []
        self._strictly = True

    @property
    def over(self) -> bool:
        """Whether each is gone, or stays."""
        return not self._rows

    def ended(self, row: ContainerRow) -> None:
        """No process is in it any more, as far as is known."""
        self._waiting.discard(row.id)
        self._offer(row)

    def again(self, row: ContainerRow) -> None:
        """Somebody is still in it, against what was known: `ended` will be said once more."""
        self._waiting.add(row.id)

    def overdue(self) -> None:
        """Do not wait for what is deeper any more."""
        self._strictly = False

    def take(self, most: int) -> list[ContainerRow]:
        """Some of one depth whose turn it is; the caller says `gone`, `failed` or `again` for each."""
        batch: list[ContainerRow] = []
        while len(batch) < most and self._ready and self._may_go(self._ready[0][1], batch):
            batch.append(self._rows[heappop(self._ready)[1]])
        return batch

    def _may_go(self, container_id: int, batch: Sequence[ContainerRow]) -> bool:
        depth = self._depth[container_id]
        if batch:
            return depth == self._depth[batch[0].id]
        return not self._strictly or depth == max(self._left)

    def gone(self, row: ContainerRow) -> None:
        """Nothing of it is left."""
        self._drop(row)
        above = self._rows.get(row.parent_id) if row.parent_id is not None else None
        if above is not None:
            self._below[above.id] -= 1
            if above.id not in self._waiting:
                self._offer(above)

    def failed(self, row: ContainerRow) -> None:
        """It stays, and so does what is above it."""
        above: ContainerRow | None = row
        while above is not None:
            self._drop(above)
            above = self._rows.get(above.parent_id) if above.parent_id is not None else None

    def waiting(self) -> list[ContainerRow]:
        """Those that have not ended, deepest first."""
        return [row for row in self._rows.values() if row.id in self._waiting]

    def _offer(self, row: ContainerRow) -> None:
        if row.id in self._rows and not self._below[row.id]:
            heappush(self._ready, (self._turn[row.id], row.id))

    def _drop(self, row: ContainerRow) -> None:
        if self._rows.pop(row.id, None) is None:
            return
        depth = self._depth[row.id]
        self._left[depth] -= 1
        if not self._left[depth]:
            del self._left[depth]


def depths_of(doomed: Sequence[ContainerRow]) -> dict[int, int]:
    """How many levels below the top, which is the last, each is."""
    depth = {doomed[-1].id: 0}
    for row in reversed(doomed[:-1]):
        depth[row.id] = depth[row.parent_id or 0] + 1
    return depth
