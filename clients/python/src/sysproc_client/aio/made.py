"""What a call makes, to be awaited or to be entered: `await client.create()`, `async with client.create() as box`.

What is entered is undone at the end by what was made: a container is destroyed, a volume deleted or unmounted.
"""

from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar


class Undone(Protocol):
    """Something that undoes itself at the end of a block."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


M = TypeVar("M", bound=Undone)


class Made(Generic[M]):
    """A call that makes something, before it is made."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, M]]) -> None:
        self._make = make
        self._made: list[M] = []

    def __await__(self) -> Generator[Any, None, M]:
        return self._make().__await__()

    async def __aenter__(self) -> M:
        self._made.append(await self._make())
        return self._made[-1]

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._made.pop().__aexit__(kind, error, trace)
