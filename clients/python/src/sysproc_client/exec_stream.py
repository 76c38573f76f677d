"""One call of Exec, and its next message, which somebody may wait for only a while.

gRPC's iterator blocks until a message is there. So who waits for a while lets a thread take it; when the time is up the
message stays with the stream, for who reads next. What is said and read on it is `sysproc_client.process`.
"""

import threading
from collections.abc import Callable
from typing import Any

import grpc

from nightos.sysproc.v1.process_service_pb2 import ExecResponse
from sysproc_client._core.deadline import Deadline
from sysproc_client.channels import Place


class Reading(threading.Thread):
    """The next message; it ends with that, or with the call."""

    def __init__(self, call: Any) -> None:
        super().__init__(name="reading of an exec", daemon=True)
        self._call = call
        self._response: ExecResponse | None = None
        self._error: grpc.RpcError | None = None

    def run(self) -> None:
        """See threading."""
        try:
            self._response = next(self._call, None)
        except grpc.RpcError as error:
            self._error = error

    def result(self) -> ExecResponse | None:
        """Once it has ended: the message; None at the end of the stream. Raises grpc.RpcError."""
        if self._error is not None:
            raise self._error
        return self._response


class ExecStream:
    """One call of Exec and the room that it takes; one thread reads at a time. over: told when the call has ended."""

    def __init__(self, place: Place, call: Any, over: Callable[[], None]) -> None:
        self.place, self._call = place, call
        self._call.add_callback(over)
        self._reading: Reading | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the call has not ended."""
        return bool(self._call.is_active())

    def has_next(self, deadline: Deadline) -> bool:
        """Wait until `next` does not block; False if that takes longer. Without a deadline it is `next` that waits."""
        if self._reading is None:
            if deadline.left is None:
                return True
            self._reading = Reading(self._call)
            self._reading.start()
        self._reading.join(deadline.left)
        return not self._reading.is_alive()

    def next(self) -> ExecResponse | None:
        """The next message; None at the end of the stream. Raises grpc.RpcError."""
        reading, self._reading = self._reading, None
        if reading is None:
            response: ExecResponse | None = next(self._call, None)
            return response
        return reading.result()

    def close(self) -> None:
        """End it; what was not taken is lost with it."""
        self._call.cancel()
        self.place.leave()
