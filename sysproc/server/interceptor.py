"""What happens around every call: who calls, may they, what do they name; errors made fit to send; one line of log.

    refused connection, or a method that the caller may not call ──▶ PERMISSION_DENIED, before anything is read
      ▼
    the request, or the first of a stream; the references in it ──▶ INVALID_ARGUMENT, NOT_FOUND
      ▼
    the servicer ──▶ SysprocError: its status (sysproc.server.status)
                 ──▶ anything else: INTERNAL with a number that the log has too, and nothing more
                 ──▶ cancelled: the client has gone, or its deadline is over; or we stop: UNAVAILABLE

grpc.aio shows interceptors of its own no request, so this wraps the handler of each kind, once, at start. What is
not in its table is not served. The rules are in `sysproc.server.access`, the references in `sysproc.server.targets`.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing
from types import TracebackType
from typing import Any

import grpc
import structlog
from google.protobuf.message import Message
from structlog.contextvars import bind_contextvars

from nightos.sysproc.v1.access_pb2 import CALLER_ANYONE
from sysproc.errors import Internal, InvalidArgument, PermissionDenied, SysprocError, Unavailable, Unimplemented
from sysproc.server.access import Method, Served
from sysproc.server.call import Call
from sysproc.server.peer import Caller
from sysproc.server.status import wire_status
from sysproc.server.targets import Resolver

log = structlog.get_logger()

Context = grpc.aio.ServicerContext[Any, Any]

# Calls that last as long as the client likes: at the end of the daemon they are not waited for.
ENDLESS = frozenset(
    {
        "ProcessService/Exec",
        "ProcessService/Wait",
        "Health/Watch",
        "ServerReflection/ServerReflectionInfo",
    }
)
# Asked for all the time by supervisors: not worth a line at the usual level.
QUIET = frozenset({"Health/Check", "Health/Watch"})


class Interceptor(grpc.GenericRpcHandler):
    """The table of everything that is served, each handler wrapped; given to grpcio as its only handler."""

    def __init__(self, served: Iterable[Served], caller_of: Callable[[str], Caller], resolver: Resolver) -> None:
        self._caller_of, self._resolver = caller_of, resolver
        self._handlers = {one.method.path: self._handler(one) for one in served}
        self._unknown: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(self._answer_unknown)
        self._running: set[Around] = set()
        self._stopping = False
        # How many calls ended how, by method and code.
        self.counts: Counter[tuple[str, str]] = Counter()

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """See grpc: the handler of a method, also of one that does not exist."""
        handler: grpc.RpcMethodHandler[Any, Any] = self._handlers.get(details.method, self._unknown)
        return handler

    def stop(self, all_calls: bool = False) -> None:
        """Take no new calls, and end those that would not end by themselves (or all) with UNAVAILABLE.

        What they watch, and the verbs that they have begun, go on.
        """
        self._stopping = True
        for around in list(self._running):
            if all_calls or around.call.method.name in ENDLESS:
                around.cut()

    async def idle(self, timeout_s: float) -> bool:
        """Wait until no call is under way; whether that came about in time."""
        tasks = [around.task for around in self._running]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)
        return not self._running

    def _handler(self, served: Served) -> "grpc.RpcMethodHandler[Any, Any]":
        method, function = served.method, served.function

        async def unary(first: Any, context: Context) -> Message:
            async with self._around(method, context) as around:
                request = await self._admit(around.call, first)
                return await function(request, around.call)  # type: ignore[no-any-return]  # a message of the API
            raise AssertionError("an error was swallowed")

        async def stream(first: Any, context: Context) -> None:
            async with self._around(method, context) as around:
                request = await self._admit(around.call, first)
                async with aclosing(function(request, around.call)) as responses:
                    async for response in responses:
                        await context.write(response)

        kind = ("stream" if method.client_streaming else "unary", "stream" if method.server_streaming else "unary")
        make = getattr(grpc, f"{kind[0]}_{kind[1]}_rpc_method_handler")
        return make(  # type: ignore[no-any-return]  # one of four functions of the same type
            stream if method.server_streaming else unary,
            request_deserializer=method.request.FromString,
            response_serializer=method.response.SerializeToString,
        )

    def _around(self, method: Method, context: Context) -> "Around":
        return Around(Call(method, self._caller_of(context.peer()), context), self._running, self.counts)

    async def _admit(self, call: Call, first: Any) -> Any:
        """Authorize the call, then find what it names; returns the request, or the iterator of requests."""
        check_caller(call)
        if self._stopping:
            raise stopping()
        if not call.method.references:
            return first
        request = await opening_of(call.method, first) if call.method.client_streaming else first
        found = await self._resolver.resolve(call.method, request, call.caller)
        call.targets, call.answered = found.targets, found.answered
        bind_contextvars(container=call.named)
        return replayed(call.method, request, first) if call.method.client_streaming else request

    async def _answer_unknown(self, _: object, context: Context) -> None:
        error = Unimplemented(
            "This service has no such method.",
            resolution="Compare versions with GetSystemInfo; reflection shows what there is.",
            reason="UNKNOWN_METHOD",
        )
        self.counts["unknown", "UNIMPLEMENTED"] += 1
        await send(error, context)


def check_caller(call: Call) -> None:
    """Refuse a caller that may not call this method; says nothing of what exists."""
    caller = call.caller
    if caller.refused:
        raise denied(caller.refused, "Use the socket that is meant for you, as a user who may.")
    if call.method.caller == CALLER_ANYONE:
        return
    if caller.container_id is not None:
        raise denied("A container may not do this, or not there.", "Ask whoever created the container to do it.")


def denied(brief: str, resolution: str) -> PermissionDenied:
    """The error for a caller that may not."""
    return PermissionDenied(brief, resolution=resolution)


async def opening_of(method: Method, requests: AsyncIterator[Message]) -> Message:
    """The first message of a stream, which names its target; INVALID_ARGUMENT if it does not."""
    first = await anext(requests, None)
    if first is None or not opens(method, first):
        raise InvalidArgument(
            f"The stream has to begin with one of: {', '.join(sorted(method.openings))}.",
            resolution="Send it as the first message.",
            reason="BAD_OPENING",
        )
    return first


async def replayed(method: Method, first: Message, rest: AsyncIterator[Message]) -> AsyncIterator[Message]:
    """The whole stream again; INVALID_ARGUMENT if a later message would name another target."""
    yield first
    async for message in rest:
        if opens(method, message):
            raise InvalidArgument(
                f"Only the first message may be one of: {', '.join(sorted(method.openings))}.",
                resolution="Open a stream of its own for each.",
                reason="SECOND_OPENING",
            )
        yield message


def opens(method: Method, message: Message) -> bool:
    """Whether a message of a stream names a target."""
    return any(message.HasField(field) for field in method.openings)


async def send(error: SysprocError, context: Context) -> None:
    """End the call with an error; raises what grpcio wants to be raised."""
    status = wire_status(error)
    await context.abort(status.code, status.message, status.trailers)


class Around:
    """One call from its begin to its end: errors become a status, the end becomes a line of log."""

    def __init__(self, call: Call, running: "set[Around]", counts: "Counter[tuple[str, str]]") -> None:
        self.call, self._running, self._counts = call, running, counts
        self.task = current_task()
        self._begun, self._cut = time.perf_counter(), False

    def cut(self) -> None:
        """End the call from outside, with UNAVAILABLE."""
        if not self._cut:
            self._cut = True
            self.task.cancel()

    async def __aenter__(self) -> "Around":
        self._running.add(self)
        bind_contextvars(request=self.call.number, method=self.call.method.name, caller=str(self.call.caller))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.discard(self)
        match error:
            case None:
                self._log("OK")
            case grpc.aio.AbortError():
                self._log(self.call.context.code().name)
            case asyncio.CancelledError() if not self._cut:
                self._log("DEADLINE_EXCEEDED" if (self.call.context.time_remaining() or 1) <= 0 else "CANCELLED")
            case SysprocError():
                await self._end(error)
            case asyncio.CancelledError():
                self.task.uncancel()
                await self._end(stopping())
            case Exception():
                log.error("unexpected error", exc_info=error)
                await self._end(unexpected(self.call.number))
            case _:
                self._log("ABORTED")

    async def _end(self, error: SysprocError) -> None:
        status = wire_status(error)
        self._log(status.code.name, reason=error.reason, error=status.message)
        await send(error, self.call.context)

    def _log(self, code: str, **more: str) -> None:
        method, refused = self.call.method.name, code == "PERMISSION_DENIED"
        self._counts[method, code] += 1
        write = log.warning if refused else log.debug if method in QUIET else log.info
        write("call", code=code, ms=round((time.perf_counter() - self._begun) * 1000, 2), **more)


def current_task() -> asyncio.Task[Any]:
    """The task that grpcio runs this call in."""
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("called outside of a task")
    return task


def stopping() -> Unavailable:
    """The error for calls that a daemon ends because it ends itself."""
    return Unavailable(
        "The service is being stopped or restarted; containers and processes live on.",
        resolution="Try again in a moment; attach to a process again with the offsets that were reached.",
        reason="STOPPING",
    )


def unexpected(number: str) -> Internal:
    """The error for what should not have happened; the cause is for the log only."""
    return Internal(
        f"Something went wrong inside the service (error {number}).",
        resolution=f"The service's log tells more under {number}.",
        metadata={"error_id": number},
    )
