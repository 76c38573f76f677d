"""Both shells of the client by one name each, so that a test is written once: as a program for asyncio.

`Awaited` makes the sync shell awaitable, each call in a thread. That both have the same shape is tested in
`tests.unit.client.test_parity`.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import grpc

from sysproc_client import Client
from sysproc_client.aio import AsyncClient

SHELLS = ("sync", "async")
END = object()


def client_of(shell: str, endpoint: str, **arguments: Any) -> Any:
    """A client of this shell; its types are those of neither."""
    return AsyncClient(endpoint, **arguments) if shell == "async" else Awaited(Client(endpoint, **arguments))


@contextmanager
def grpc_begun() -> Iterator[None]:
    """Its poller has two sockets, as long as anything of it is used: they are nobody's leak."""
    with asyncio.Runner() as runner:  # it asks for a loop, and other tests have left none
        asyncio.set_event_loop(runner.get_loop())
        grpc.aio.init_grpc_aio()
        try:
            yield
        finally:
            grpc.aio.shutdown_grpc_aio()
            asyncio.set_event_loop(None)


def plain(value: Any) -> Any:
    """What the sync shell is given."""
    return value.one if isinstance(value, Awaited) else value


class Call:
    """A call of the sync shell, to be awaited, entered or iterated; it is made then."""

    def __init__(self, call: Any, arguments: Any, named: Any) -> None:
        self._call, self._entered = call, Awaited(None)
        self._arguments, self._named = map(plain, arguments), {name: plain(one) for name, one in named.items()}

    async def _result(self) -> Any:
        return awaited(await asyncio.to_thread(self._call, *self._arguments, **self._named))

    def __await__(self) -> Any:
        return self._result().__await__()

    async def __aenter__(self) -> Any:
        self._entered = await self._result()
        return await self._entered.__aenter__()

    async def __aexit__(self, *left: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._entered.__aexit__(*left)

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for one in await self._result():
            yield one


class Awaited:
    """An object of the sync shell. Only what does not wait is asked for at once: what it is."""

    # These make something without asking anybody.
    AT_ONCE = ("exec", "attach", "at")

    def __init__(self, one: Any) -> None:
        self.one = one

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.one, name)
        if name in self.AT_ONCE:
            return lambda *arguments, **named: awaited(found(*arguments, **named))
        if callable(found):
            return lambda *arguments, **named: Call(found, arguments, named)
        return awaited(found)

    async def __aenter__(self) -> "Awaited":
        return Awaited(await asyncio.to_thread(self.one.__enter__))

    async def __aexit__(self, *left: type[BaseException] | BaseException | TracebackType | None) -> None:
        await asyncio.to_thread(self.one.__exit__, *left)

    async def __aiter__(self) -> AsyncIterator[Any]:
        values = iter(self.one)
        while (value := await asyncio.to_thread(next, values, END)) is not END:
            yield awaited(value)


def awaited(value: Any) -> Any:
    """What belongs to the client is wrapped; the rest is as it is."""
    is_ours = type(value).__module__.startswith("sysproc_client") and "_core" not in type(value).__module__
    is_iterator = type(value).__name__ in ("generator", "map")
    return Awaited(value) if is_ours or is_iterator else value
