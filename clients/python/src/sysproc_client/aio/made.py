"""What a call makes, to be awaited or to be entered: `await client.create()`, `async with client.create() as box`.

What is entered is undone at the end by what was made: a container is destroyed, a volume deleted or unmounted. What
is still being made when its caller is cancelled is undone once it is there: to ask at once would be too early.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from sysproc_client._core.errors import SysprocError
from sysproc_client.aio.to_end import to_end

T = TypeVar("T")


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


async def made_or_undone(work: Coroutine[Any, Any, T], undo: Callable[[T], Coroutine[Any, Any, object]]) -> T:
    """What it makes; for who is cancelled meanwhile it is undone, if it is made after all."""
    making = asyncio.ensure_future(work)
    try:
        await asyncio.wait({making})
    except asyncio.CancelledError:
        await to_end(_undone(making, undo))
        raise
    return making.result()


async def _undone(making: "asyncio.Future[T]", undo: Callable[[T], Coroutine[Any, Any, object]]) -> None:
    with suppress(SysprocError):  # it was refused, or nobody can be asked; there is nobody to be told
        await undo(await making)
