"""Blocking calls and files, in threads, so that the loop goes on meanwhile; to their end, whoever is cancelled.

What is awaited to its end without a thread is in `sysproc_client.aio.to_end`.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Generic, TypeVar

from sysproc_client.aio.to_end import in_thread

T = TypeVar("T")


class Threaded(Generic[T]):
    """A context manager that is made, entered and left in threads."""

    def __init__(self, make: Callable[[], AbstractContextManager[T]]) -> None:
        self._make = make
        self._entered: AbstractContextManager[T] | None = None

    def _enter(self) -> T:
        manager = self._make()
        value = manager.__enter__()
        self._entered = manager
        return value

    async def __aenter__(self) -> T:
        try:
            return await in_thread(self._enter)
        except asyncio.CancelledError as cancelled:
            if self._entered is not None:
                await self.__aexit__(type(cancelled), cancelled, None)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._entered is not None:
            await in_thread(self._entered.__exit__, kind, error, trace)
