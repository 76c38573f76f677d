"""The connection to a service: its endpoint, its channels, and calls that are tried again where that is safe.

The rule for that is `sysproc_client._core.retry`, what an error says `sysproc_client._core.errors`.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import grpc

from sysproc_client._core.errors import SysprocError, client_closed, from_rpc_error
from sysproc_client._core.retry import PATIENCE_S, TIMEOUT_S, Attempts, Fate, fate_of
from sysproc_client.channels import Channels
from sysproc_client.endpoint import chosen_endpoint, is_remote
from sysproc_client.tls import Tls, check_let_in, explained

T = TypeVar("T")

# Told the endpoint, once in each absence.
OnAway = Callable[[str], None]


class Connection:
    """One service, and how long it is waited for; made at once, connected with the first call."""

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
        self.channel = self.channels.first

    # -- calls

    def call(self, method: Callable[..., T], request: Any, *, more_s: float = 0, repeatable: bool = True) -> T:
        """A unary call. more_s: what it may take by itself; repeatable: it may be sent twice. Raises SysprocError."""
        timeout = None if self._timeout is None else self._timeout + more_s
        deadline = None if timeout is None else time.monotonic() + timeout
        attempts = self.attempts(repeatable=repeatable)
        while True:
            try:
                with self.channels.still_open():
                    return method(request, timeout=None if deadline is None else deadline - time.monotonic())
            except grpc.RpcError as error:
                failure = self.failure_of(error, timeout)
                time.sleep(self.pause(attempts, fate_of(error), failure, deadline))

    def begin(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """A streaming call. Raises Unavailable (the client is closed)."""
        with self.channels.still_open():
            return method(*arguments)

    def stream(self, call: Iterator[T]) -> Iterator[T]:
        """What a streaming call answers that cannot be made again. Raises SysprocError."""
        attempts = self.attempts(repeatable=False)
        try:
            yield from call
        except grpc.RpcError as error:
            failure, fate = self.failure_of(error), fate_of(error)
            raise self._final(attempts, fate, failure) from error

    def repeated(self, call: Callable[[], Iterator[T]], attempts: Attempts) -> Iterator[T]:
        """What a streaming call answers; made anew, and answered from its beginning, when it was lost."""
        while True:
            try:
                with self.channels.still_open():
                    yield from call()
                return
            except grpc.RpcError as error:
                failure = self.failure_of(error)
                time.sleep(self.pause(attempts, fate_of(error), failure))

    def failure_of(self, error: grpc.RpcError, timeout: float | None = None) -> SysprocError:
        """The exception for what a call ended with. timeout: the seconds that it was given."""
        if self.channels.closed and error.code() is grpc.StatusCode.CANCELLED:
            return client_closed()
        return from_rpc_error(error, self.endpoint, timeout)

    # -- attempts

    def attempts(self, *, repeatable: bool = True) -> Attempts:
        """Those of one request, by this connection's patience."""
        return Attempts(self._patience, repeatable)

    def pause(self, attempts: Attempts, fate: Fate, failure: SysprocError, deadline: float | None = None) -> float:
        """How long to wait before the next attempt. Raises the failure, or what explains it, if there is none."""
        now = time.monotonic()
        pause = attempts.pause_after(fate, now, deadline)
        if self._tls is not None and attempts.may_be_refused(fate):
            check_let_in(self.endpoint, self._tls)
        if pause is None:
            raise self._final(attempts, fate, failure)
        if attempts.worth_saying(now):
            self._on_away(self.endpoint)
        return pause

    def _final(self, attempts: Attempts, fate: Fate, failure: SysprocError) -> SysprocError:
        final = attempts.final(fate, failure, self.endpoint, time.monotonic())
        if final is not None or self._tls is None:
            return final or failure
        return explained(failure, self.endpoint, self._tls)

    def close(self) -> None:
        """Close the channels."""
        self.channels.close()
