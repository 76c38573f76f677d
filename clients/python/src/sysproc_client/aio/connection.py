"""The connection to a service, for asyncio: its endpoint, its channels, calls that are tried again where it is safe.

The rule for that is `sysproc_client._core.retry`, what an error says `sysproc_client._core.errors`; the same with
threads is `sysproc_client.connection`.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, TypeVar

import grpc

from sysproc_client._core.errors import SysprocError, client_closed, from_rpc_error
from sysproc_client._core.retry import PATIENCE_S, TIMEOUT_S, Attempts, Fate, fate_of
from sysproc_client.aio.channels import Channels, Stubs
from sysproc_client.aio.finished import answer_of, answers_of
from sysproc_client.aio.to_end import in_thread
from sysproc_client.connection import OnAway
from sysproc_client.endpoint import chosen_endpoint, is_remote
from sysproc_client.tls import Tls, check_let_in, explained

T = TypeVar("T")
Answer_co = TypeVar("Answer_co", covariant=True)


class Answers(Protocol[Answer_co]):
    """A call that answers more than once."""

    def __aiter__(self) -> AsyncIterator[Answer_co]: ...

    def cancel(self) -> object:
        """Hang up."""


class Connection:
    """One service, and how long it is waited for; connected with the first call."""

    def __init__(
        self,
        endpoint: str | None,
        *,
        tls: Tls | None = None,
        timeout: float | None = TIMEOUT_S,
        patience: float = PATIENCE_S,
        on_away: OnAway = lambda _: None,
    ) -> None:
        """timeout: of a unary call, with all its attempts. patience: how long a service that died may stay away.

        tls: the files for tcp://; absent: those of the environment.
        """
        self.endpoint = chosen_endpoint(endpoint)
        self._timeout, self._patience, self._on_away = timeout, patience, on_away
        self._tls = (tls or Tls.chosen({})) if is_remote(self.endpoint) else None
        self.channels = Channels(self.endpoint, self._tls)

    @property
    def stubs(self) -> Stubs:
        """What can be called."""
        return self.channels.stubs

    # -- calls

    async def call(
        self, method: Callable[..., Awaitable[T]], request: Any, *, more_s: float = 0, repeatable: bool = True
    ) -> T:
        """A unary call. more_s: what it may take by itself; repeatable: it may be sent twice. Raises SysprocError."""
        timeout = None if self._timeout is None else self._timeout + more_s
        deadline = None if timeout is None else time.monotonic() + timeout
        attempts = self.attempts(repeatable=repeatable)
        while True:
            try:
                left = None if deadline is None else deadline - time.monotonic()
                return await answer_of(method(request, timeout=left))
            except grpc.aio.UsageError:
                raise client_closed() from None  # while it waited for the next attempt
            except grpc.RpcError as error:
                failure = from_rpc_error(error, self.endpoint, timeout)
                await asyncio.sleep(await self.pause(attempts, fate_of(error), failure, deadline))

    async def stream(self, call: "grpc.aio.UnaryStreamCall[Any, T]") -> AsyncGenerator[T, None]:
        """What a streaming call answers that cannot be made again. Raises SysprocError."""
        attempts = self.attempts(repeatable=False)
        try:
            async for response in answers_of(call):
                yield response
        except grpc.RpcError as error:
            raise await self.final(attempts, error) from error
        finally:
            call.cancel()

    async def repeated(self, call: Callable[[], Answers[T]], attempts: Attempts) -> AsyncGenerator[T, None]:
        """What a streaming call answers; made anew, and answered from its beginning, when it was lost."""
        while True:
            try:
                current = call()
            except grpc.aio.UsageError:
                raise client_closed() from None  # while it waited for the next attempt
            try:
                async for response in answers_of(current):
                    yield response
                return
            except grpc.RpcError as error:
                failure = from_rpc_error(error, self.endpoint)
                await asyncio.sleep(await self.pause(attempts, fate_of(error), failure))
            finally:
                current.cancel()

    # -- attempts

    def attempts(self, *, repeatable: bool = True) -> Attempts:
        """Those of one request, by this connection's patience."""
        return Attempts(self._patience, repeatable)

    async def pause(
        self, attempts: Attempts, fate: Fate, failure: SysprocError, deadline: float | None = None
    ) -> float:
        """How long to wait before the next attempt. Raises the failure, or what explains it, if there is none."""
        now = time.monotonic()
        pause = attempts.pause_after(fate, now, deadline)
        if self._tls is not None and attempts.may_be_refused(fate):
            await in_thread(check_let_in, self.endpoint, self._tls)
        if pause is None:
            raise await self._final(attempts, fate, failure)
        if attempts.worth_saying(now):
            self._on_away(self.endpoint)
        return pause

    async def final(self, attempts: Attempts, error: grpc.RpcError) -> SysprocError:
        """What the caller is told of a call that is not made again."""
        return await self._final(attempts, fate_of(error), from_rpc_error(error, self.endpoint))

    async def _final(self, attempts: Attempts, fate: Fate, failure: SysprocError) -> SysprocError:
        final = attempts.final(fate, failure, self.endpoint, time.monotonic())
        if final is not None or self._tls is None:
            return final or failure
        return await in_thread(explained, failure, self.endpoint, self._tls)

    async def close(self) -> None:
        """Close the channels."""
        await self.channels.close()
