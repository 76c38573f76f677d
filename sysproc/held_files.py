"""Files without a name that are kept between calls: what is being exported, and what has been received of an import.

They are gone when the transfer is over, when nobody has gone on with it for `KEPT_S`, and with the daemon: nothing of
them is ever to be found on the disk. A container has few at once, and they count against the storage of whose volume
it is (`sysproc.storage.quotas`). What is done with them is in `sysproc.volume_exports` and `sysproc.volume_imports`.
"""

import asyncio
import errno
import os
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sysproc.errors import FailedPrecondition, LimitExceeded

KEPT_S = 600.0
MOST_OF_A_CONTAINER = 2
PATIENCE_S = 5.0
BLOCK_BYTES = 512

T = TypeVar("T")
# The container of the caller (None: the host) and the id that it gave.
Key = tuple[int | None, str]


@dataclass
class Held(Generic[T]):
    """One file. owner_id: the container whose storage it is; state: what its verb knows of it."""

    fd: int
    owner_id: int | None
    state: T
    free: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    abandoned: bool = False
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)

    def stored_bytes(self) -> int:
        """What it occupies."""
        try:
            return os.fstat(self.fd).st_blocks * BLOCK_BYTES
        except OSError as failure:
            if failure.errno != errno.EBADF:
                raise
            return 0  # it is over since just now: this is asked in another thread


class HeldFiles(Generic[T]):
    """Those of one kind of transfer; used from one event loop."""

    def __init__(self) -> None:
        self._held: dict[Key, Held[T]] = {}

    def stored_bytes(self, owners: Collection[int]) -> int:
        """What all files for these containers occupy."""
        return sum(one.stored_bytes() for one in tuple(self._held.values()) if one.owner_id in owners)

    async def take(self, key: Key) -> Held[T] | None:
        """The file of a transfer that goes on; it is this call's until `put_back`. Raises FailedPrecondition.

        That a call was broken off is noticed here a little later than by who makes the next one.
        """
        held = self._held.get(key)
        if held is None:
            return None
        try:
            async with asyncio.timeout(PATIENCE_S):
                await held.free.wait()
        except TimeoutError:
            raise under_way(key[1]) from None
        if self._held.get(key) is not held or not held.free.is_set():
            return await self.take(key)
        self._stop(held)
        held.free.clear()
        return held

    def has(self, key: Key) -> bool:
        """Whether there is something to go on with."""
        return key in self._held

    def check_room(self, caller: int | None) -> None:
        """Raise LimitExceeded where a container has as many as it may have."""
        if caller is not None and sum(one == caller for one, _ in self._held) >= MOST_OF_A_CONTAINER:
            raise too_many()

    def add(self, key: Key, held: Held[T]) -> None:
        """A new one, this call's; the fd is ours from now on."""
        held.free.clear()
        self._held[key] = held

    def put_back(self, key: Key) -> None:
        """The call is over, the transfer is not: it may go on for a while."""
        held = self._held.get(key)
        if held is not None and held.abandoned:
            self.end(key)
        elif held is not None:
            held.free.set()
            held.timer = asyncio.get_running_loop().call_later(KEPT_S, self.drop, key)

    def drop(self, key: Key) -> None:
        """The transfer does not go on: it is over at the end of the call that has it, or now."""
        held = self._held.get(key)
        if held is not None and held.free.is_set():
            self.end(key)
        elif held is not None:
            held.abandoned = True

    def end(self, key: Key) -> None:
        """The same for the call that has it."""
        held = self._held.pop(key, None)
        if held is not None:
            self._stop(held)
            os.close(held.fd)
            held.free.set()

    @staticmethod
    def _stop(held: Held[T]) -> None:
        if held.timer is not None:
            held.timer.cancel()
            held.timer = None


def under_way(transfer_id: str) -> FailedPrecondition:
    """Another call has it."""
    return FailedPrecondition(
        f"Another call carries the transfer {transfer_id[:40]} on.",
        resolution="End that one first, or begin with another id.",
        reason="TRANSFER_UNDER_WAY",
    )


def too_many() -> LimitExceeded:
    """The container has enough of them."""
    return LimitExceeded(
        f"{MOST_OF_A_CONTAINER} transfers of this container are not finished.",
        resolution="Finish or abandon one of them; ten minutes after its last call it is forgotten.",
    )
