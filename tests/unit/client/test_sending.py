"""Sending to a service that has ended the call already: what it has answered is read all the same."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import BytesValue

from sysproc_client.aio.sending import send, send_no_more

# More than gRPC's window, so that messages are under way when the call ends.
PIECE = BytesValue(value=bytes(1 << 20))
ANSWERS = [BytesValue(value=word) for word in (b"one", b"two", b"three")]


async def ends_early(requests: AsyncIterator[BytesValue], _: Any) -> AsyncIterator[BytesValue]:
    """Answers the first message, and ends."""
    await anext(requests)
    for answer in ANSWERS:
        yield answer


async def test_what_was_answered_is_read_after_a_send_that_failed(tmp_path: Path) -> None:
    server = grpc.aio.server()
    serve = grpc.stream_stream_rpc_method_handler(ends_early, BytesValue.FromString, BytesValue.SerializeToString)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", {"Talk": serve}),))
    server.add_insecure_port(f"unix://{tmp_path}/socket")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"unix://{tmp_path}/socket") as channel:
            talk = channel.stream_stream("/test/Talk", BytesValue.SerializeToString, BytesValue.FromString)
            for _ in range(20):
                call = talk()
                assert await send(call, PIECE)
                while await send(call, PIECE):
                    pass
                await send_no_more(call)
                assert [await call.read() for _ in ANSWERS] == ANSWERS
                assert await call.read() is grpc.aio.EOF
                assert await call.code() is grpc.StatusCode.OK
    finally:
        await server.stop(None)


async def test_nothing_is_sent_without_a_connection(tmp_path: Path) -> None:
    async with grpc.aio.insecure_channel(f"unix://{tmp_path}/nobody") as channel:
        call = channel.stream_stream("/test/Talk", BytesValue.SerializeToString, BytesValue.FromString)()
        sending = asyncio.ensure_future(send(call, PIECE))
        await asyncio.wait({sending})
        failure = sending.exception()
        assert isinstance(failure, grpc.RpcError) and failure.code() is grpc.StatusCode.UNAVAILABLE
