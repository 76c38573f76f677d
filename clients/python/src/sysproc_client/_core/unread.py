"""Output that has come and that nobody has taken yet, in the order in which it came.

Who takes it, and who waits for more, is in `sysproc_client.process` and `sysproc_client.aio.process`.
"""

from collections import deque
from collections.abc import Iterable
from typing import Literal

from sysproc_client._core.exec_machine import Chunk

# Who needs one thing of a process reads so much other output ahead; then it waits until somebody takes that.
UNREAD_BYTES = 16 * 2**20

Stream = Literal["stdout", "stderr"]


class Unread:
    """Both streams, which can be taken together or each by itself."""

    def __init__(self) -> None:
        self._waiting: dict[Stream, deque[tuple[int, Chunk]]] = {"stdout": deque(), "stderr": deque()}
        self._came = 0
        self._bytes = 0

    @property
    def full(self) -> bool:
        """Whether nothing should be read ahead any more."""
        return self._bytes >= UNREAD_BYTES

    def add(self, chunks: Iterable[Chunk]) -> None:
        """What has come now."""
        for chunk in chunks:
            self._waiting[chunk.stream].append((self._came, chunk))
            self._came += 1
            self._bytes += len(chunk.data)

    def has(self, stream: Stream | None) -> bool:
        """Whether something can be taken, of one stream or of any."""
        return bool(self._waiting[stream]) if stream else any(self._waiting.values())

    def take(self, stream: Stream | None) -> Chunk | None:
        """What came first, of one stream or of any; None if there is nothing."""
        queues = [self._waiting[stream]] if stream else [queue for queue in self._waiting.values() if queue]
        queue = min(queues, key=lambda one: one[0][0]) if len(queues) > 1 else next(iter(queues), None)
        if not queue:
            return None
        _, chunk = queue.popleft()
        self._bytes -= len(chunk.data)
        return chunk
