"""The calls under way: all of them, and how many each container has, which has a bound.

What a call is from its begin to its end is in `sysproc.server.around`. How many may begin in a time is bounded by the
relay (`sysproc.server.throttle`).
"""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sysproc.errors import ResourceExhausted

if TYPE_CHECKING:
    from sysproc.server.around import Around


class CallsUnderWay:
    """Used from one event loop."""

    def __init__(self, most_per_container: int) -> None:
        self._most = most_per_container
        self._calls: set[Around] = set()
        self._by_container: Counter[int] = Counter()

    def __iter__(self) -> "Iterator[Around]":
        return iter(list(self._calls))

    def __len__(self) -> int:
        return len(self._calls)

    def begin(self, around: "Around") -> None:
        """A call has begun; whether it is one too many is asked by check()."""
        self._calls.add(around)
        if (container_id := around.call.caller.container_id) is not None:
            self._by_container[container_id] += 1

    def end(self, around: "Around") -> None:
        """A call has ended."""
        self._calls.discard(around)
        if (container_id := around.call.caller.container_id) is not None:
            self._by_container[container_id] -= 1
            if not self._by_container[container_id]:
                del self._by_container[container_id]

    def check(self, container_id: int | None) -> None:
        """Raise ResourceExhausted where a container has more than it may; the host has no bound."""
        if container_id is not None and self._by_container[container_id] > self._most:
            raise ResourceExhausted(
                "This container has too many calls under way.",
                resolution="End streams that are not needed, and wait for answers before asking more.",
                reason="TOO_MANY_CALLS",
            )
