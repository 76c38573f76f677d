"""Sending on a stream that the service may end meanwhile: what it has answered until then is not lost.

`write` of a call in grpc.aio sets INTERNAL, "Internal error from Core", if the service has ended the call in that
moment; the answers that have arrived can't be read afterwards, the status of the service is covered, the call never
ends (github.com/grpc/grpc/issues/36066, seen with grpcio 1.74 to 1.85). So what is sent passes `write` by, and a send
that fails means only that nobody listens any more: whoever reads is told why. Who sends what is in
`sysproc_client.aio.process` and `sysproc_client.aio.uploads`.
"""

from typing import TYPE_CHECKING, Any, Protocol

import grpc

if TYPE_CHECKING:
    Call = grpc.aio.StreamStreamCall[Any, Any]

# What gRPC says if it did not even take the message: then no status will ever come by itself.
_NOT_TAKEN = "grpc_call_start_batch"


class Message(Protocol):
    """Of protobuf."""

    def SerializeToString(self) -> bytes:
        """What is sent."""


class Sending(Protocol):
    """What is below a call, and public only to grpc.aio."""

    async def send_serialized_message(self, message: bytes) -> None:
        """Raises grpc.aio.InternalError if the call has ended."""

    async def send_receive_close(self) -> None:
        """Half-close. Raises grpc.aio.InternalError if the call has ended."""


async def send(call: "Call", message: Message) -> bool:
    """Send a message; False if the call has ended. Raises grpc.RpcError (no connection came about)."""
    await call.wait_for_connection()
    try:
        await _below(call).send_serialized_message(message.SerializeToString())
    except grpc.aio.InternalError as error:
        return _ended(call, error)
    return True


async def send_no_more(call: "Call") -> bool:
    """Say that there will be no more; False if the call has ended."""
    try:
        await _below(call).send_receive_close()
    except grpc.aio.InternalError as error:
        return _ended(call, error)
    return True


def _below(call: "Call") -> Sending:
    sending: Sending = call._cython_call  # type: ignore[attr-defined]  # there is no public way to send that spoils nothing
    return sending


def _ended(call: "Call", error: Exception) -> bool:
    if _NOT_TAKEN in str(error):
        call.cancel()
    return False
