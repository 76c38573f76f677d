"""One call from its begin to its end: errors become a status, the end becomes one line of log.

    returned                            OK
    SysprocError                        its status (`sysproc.server.status`)
    cancelled: client gone, deadline    nobody is there to be told
    cut from outside: we stop           UNAVAILABLE
    anything else                       INTERNAL with a number that the log has too, and nothing more

What happens inside of it is in `sysproc.server.interceptor`.
"""

import asyncio
import time
from collections import Counter
from types import TracebackType
from typing import Any

import grpc
import structlog
from structlog.contextvars import bind_contextvars

from sysproc.errors import Internal, Kind, SysprocError, Unavailable
from sysproc.server import audit
from sysproc.server.call import Call
from sysproc.server.calls_under_way import CallsUnderWay
from sysproc.server.log_budget import LogBudget
from sysproc.server.status import wire_status

log = structlog.get_logger()

Context = grpc.aio.ServicerContext[Any, Any]

# Clients cancel a little before the deadline that they gave.
DEADLINE_SLACK_S = 0.05
# Asked for all the time by supervisors: not worth a line at the usual level.
QUIET = frozenset({"Health/Check", "Health/Watch"})


async def send(error: SysprocError, context: Context) -> None:
    """End the call with an error; raises what grpcio wants to be raised."""
    status = wire_status(error)
    await context.abort(status.code, status.message, status.trailers)


class Around:
    """One call from its begin to its end: errors become a status, the end becomes a line of log."""

    def __init__(
        self, call: Call, running: CallsUnderWay, counts: "Counter[tuple[str, str]]", log_budget: LogBudget
    ) -> None:
        self.call, self._running, self._counts, self._log_budget = call, running, counts, log_budget
        self.task = current_task()
        self._begun, self._cut = time.perf_counter(), False

    def cut(self) -> None:
        """End the call from outside, with UNAVAILABLE."""
        if not self._cut:
            self._cut = True
            self.task.cancel()

    async def __aenter__(self) -> "Around":
        self._running.begin(self)
        bind_contextvars(request=self.call.number, method=self.call.method.name, caller=str(self.call.caller))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.end(self)
        match error:
            case None:
                self._log("OK")
            case grpc.aio.AbortError():
                self._log(self.call.context.code().name)
            case asyncio.CancelledError() if not self._cut:
                self._log(why_cancelled(self.call.context.time_remaining()))
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
        refused = error if error.kind is Kind.PERMISSION_DENIED else None
        self._log(status.code.name, refused, reason=error.reason, error=status.message)
        await send(audit.as_told(self.call.caller, error), self.call.context)

    def _log(self, code: str, refused: SysprocError | None = None, **more: str | int) -> None:
        """Count the end of the call, and write of it what its caller's budget allows."""
        method = self.call.method.name
        self._counts[method, code] += 1
        unwritten = self._log_budget.unwritten(self.call.caller.container_id)
        if unwritten is None:
            return
        if unwritten:
            more["unwritten_before"] = unwritten
        if refused is not None:
            audit.write_refusal(self.call, refused)
        write = log.debug if method in QUIET else log.info
        write("call", code=code, ms=round((time.perf_counter() - self._begun) * 1000, 2), **more)


def current_task() -> asyncio.Task[Any]:
    """The task that grpcio runs this call in."""
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("called outside of a task")
    return task


def why_cancelled(remaining_s: float | None) -> str:
    """The code of a call that was cancelled."""
    return "DEADLINE_EXCEEDED" if remaining_s is not None and remaining_s < DEADLINE_SLACK_S else "CANCELLED"


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
