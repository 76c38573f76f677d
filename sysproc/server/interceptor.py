"""What happens around every call: who calls, may they, what do they name; errors made fit to send; one line of log.

    refused connection, or a method that the caller may not call ──▶ PERMISSION_DENIED, before anything is read
      ▼
    the request, or the first of a stream; the references in it ──▶ INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED
      ▼
    the servicer ──▶ whatever becomes of it: sysproc.server.around

grpc.aio shows interceptors of its own no request, so this wraps the handler of each kind, once, at start. What is
not in its table is not served. The rules are in `sysproc.server.access`, the references in `sysproc.server.targets`.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf.message import Message
from structlog.contextvars import bind_contextvars

from nightos.sysproc.v1.access_pb2 import CALLER_ANYONE, CALLER_HOST
from sysproc.errors import PermissionDenied, Unimplemented
from sysproc.server.access import Method, Served
from sysproc.server.around import Around, Context, send, stopping
from sysproc.server.call import Call
from sysproc.server.calls_under_way import CallsUnderWay
from sysproc.server.log_budget import LogBudget
from sysproc.server.peer import Caller
from sysproc.server.reading import opening_of, read, read_all, replayed
from sysproc.server.targets import Resolver, asked
from sysproc.storage.hierarchy import ContainerRow

Used = Callable[[Iterable[ContainerRow]], Awaitable[None]]

# What a client has sent: one message, or many. Nothing of it is read before the caller is known to be allowed.
Sent = bytes | AsyncIterator[bytes]

USE_ANOTHER_SOCKET = "Use the socket that is meant for you, as a user who may."
USE_ANOTHER_CERTIFICATE = "Show one for the host, or for a container that there is: `sysproc cert issue` makes it."
WRITE_GRACE_S = 1.0
# Calls that last as long as the client likes: at the end of the daemon they are not waited for.
ENDLESS = frozenset(
    {
        "ProcessService/Exec",
        "ProcessService/Wait",
        "Health/Watch",
        "ServerReflection/ServerReflectionInfo",
    }
)


class Interceptor(grpc.GenericRpcHandler):
    """The table of everything that is served, each handler wrapped; given to grpcio as its only handler."""

    def __init__(
        self,
        served: Iterable[Served],
        caller_of: Callable[[str], Caller],
        resolver: Resolver,
        used: Used,
        calls_per_container: int,
    ) -> None:
        """used: is told which containers a call names, once it is authorized (`sysproc.lifetimes`)."""
        self._caller_of, self._resolver, self._used = caller_of, resolver, used
        self._handlers = {one.method.path: self._handler(one) for one in served}
        self._unknown: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(self._answer_unknown)
        self._running = CallsUnderWay(calls_per_container)
        self._log_budget = LogBudget()
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
        for around in self._running:
            if all_calls or around.call.method.name in ENDLESS:
                around.cut()

    async def idle(self, timeout_s: float) -> bool:
        """Wait until no call is under way; whether that came about in time."""
        tasks = [around.task for around in self._running]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)
        return len(self._running) == 0

    def _handler(self, served: Served) -> "grpc.RpcMethodHandler[Any, Any]":
        method, function = served.method, served.function

        async def unary(sent: Sent, context: Context) -> bytes:
            async with self._around(method, context) as around:
                request = await self._admit(around.call, sent)
                response: Message = await function(request, around.call)
                return response.SerializeToString()
            raise AssertionError("an error was swallowed")

        async def stream(sent: Sent, context: Context) -> None:
            async with self._around(method, context) as around:
                request = await self._admit(around.call, sent)
                async with aclosing(function(request, around.call)) as responses:
                    async for response in responses:
                        await written(context, response.SerializeToString())

        kind = ("stream" if method.client_streaming else "unary", "stream" if method.server_streaming else "unary")
        make = getattr(grpc, f"{kind[0]}_{kind[1]}_rpc_method_handler")
        handler: grpc.RpcMethodHandler[Any, Any] = make(stream if method.server_streaming else unary)
        return handler

    def _around(self, method: Method, context: Context) -> "Around":
        call = Call(method, self._caller_of(context.peer()), context)
        return Around(call, self._running, self.counts, self._log_budget)

    async def _admit(self, call: Call, sent: Sent) -> Any:
        """Authorize the call, read it, find what it names; returns the request, or the iterator of requests."""
        if (remote := call.caller.remote) is not None:
            bind_contextvars(peer=remote.address, certificate=remote.serial)
        check_caller(call)
        self._running.check(call.caller.container_id)
        if self._stopping:
            raise stopping()
        if not isinstance(sent, bytes):
            return await self._admit_stream(call, read_all(call.method, sent))
        request = read(call.method, sent)
        if call.method.references:
            await self._resolve(call, request)
        return request

    async def _admit_stream(self, call: Call, requests: AsyncIterator[Message]) -> AsyncIterator[Message]:
        if not call.method.references:
            return requests
        first = await opening_of(call.method, requests)
        await self._resolve(call, first)
        return replayed(call.method, first, requests)

    async def _resolve(self, call: Call, request: Message) -> None:
        call.asked = asked(call.method, request)
        found = await self._resolver.resolve(call.method, request, call.caller)
        call.targets, call.answered = found.targets, found.answered
        bind_contextvars(container=call.named)
        await self._used(row for row in found.targets.values() if row is not None)

    async def _answer_unknown(self, _: object, context: Context) -> None:
        error = Unimplemented(
            "This service has no such method.",
            resolution="Compare versions with GetSystemInfo; reflection shows what there is.",
            reason="UNKNOWN_METHOD",
        )
        self.counts["unknown", "UNIMPLEMENTED"] += 1
        await send(error, context)


async def written(context: Context, data: bytes) -> None:
    """Write a message of a stream. Who cuts the stream meanwhile waits for the write, unless the client does not read.

    grpcio sends no status while a message is on its way: the client would wait for ever.
    """
    writing = asyncio.ensure_future(context.write(data))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.wait({writing}, timeout=WRITE_GRACE_S)
        writing.cancel()
        raise


def check_caller(call: Call) -> None:
    """Refuse a caller that may not call this method; says nothing of what exists."""
    caller = call.caller
    if caller.refused:
        raise denied(caller.refused, USE_ANOTHER_SOCKET if caller.remote is None else USE_ANOTHER_CERTIFICATE)
    if not may_call(caller, call.method):
        raise denied("You may not do this.", "`sysproc whoami` shows what you may do; ask who created the container.")


def may_call(caller: Caller, method: Method) -> bool:
    """Whether a caller whose connection was not refused may call a method at all."""
    if method.caller == CALLER_ANYONE:
        return True
    if method.caller == CALLER_HOST:
        return caller.authority and caller.container_id is None
    return caller.authority


def denied(brief: str, resolution: str) -> PermissionDenied:
    """The error for a caller that may not."""
    return PermissionDenied(brief, resolution=resolution)
