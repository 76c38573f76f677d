"""What the relay leaves to grpcio, or takes for granted of it: a raw client of a server with the daemon's options."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from benchmarks.flooding import CALL, END_HEADERS, PREFACE
from sysproc.server.daemon import MESSAGE_BYTES, options
from sysproc.server.frames import DATA, END_STREAM, HEADER, HEADERS, PADDED, RESET
from sysproc.server.settings import Settings
from tests.unit.server.test_streams import frame, message

# Kind, flags, payload.
Frame = tuple[int, int, bytes]


class Echo(grpc.GenericRpcHandler):
    """Answers every method with what it was sent."""

    def service(self, _: Any) -> Any:
        async def answer(sent: bytes, __: Any) -> bytes:
            return sent

        return grpc.unary_unary_rpc_method_handler(answer)


class Raw:
    """A client that writes frames as they are given to it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    async def of_any(self) -> tuple[int, Frame]:
        """The next frame, with the number of its stream."""
        high, low, kind, flags, number = HEADER.unpack(await self._reader.readexactly(HEADER.size))
        return number, (kind, flags, await self._reader.readexactly(high << 16 | low))

    async def of_stream(self, stream: int) -> Frame:
        """The next frame of a stream; the others are passed over."""
        while True:
            number, found = await self.of_any()
            if number == stream:
                return found

    async def last_of(self, stream: int) -> Frame:
        """The frame by which the server ends a stream."""
        while True:
            found = await self.of_stream(stream)
            if found[0] == RESET or found[1] & END_STREAM:
                return found


@asynccontextmanager
async def raw(tmp_path: Path) -> AsyncIterator[Raw]:
    server = grpc.aio.server(handlers=(Echo(),), options=options(Settings()))
    server.add_insecure_port(f"unix:{tmp_path}/s")
    await server.start()
    try:
        reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/s")
        writer.write(PREFACE)
        yield Raw(reader, writer)
        writer.close()
    finally:
        await server.stop(None)


def call(stream: int) -> bytes:
    """The begin of a call."""
    return frame(HEADERS, stream, CALL, END_HEADERS)


@pytest.mark.parametrize("flags", [PADDED, PADDED | END_STREAM])
async def test_padded_data_end_the_stream(tmp_path: Path, flags: int) -> None:
    """So the relay need not look for messages in them."""
    async with raw(tmp_path) as client:
        client.writer.write(call(1) + frame(DATA, 1, b"\2" + message(0) + b"\0\0", flags))
        kind, _, _ = await client.of_stream(1)
        assert kind == RESET


async def test_a_message_that_is_too_large_is_refused_by_its_length(tmp_path: Path) -> None:
    """Hardly a part of it was sent: so the service never holds more of it than a window."""
    async with raw(tmp_path) as client:
        client.writer.write(call(1) + frame(DATA, 1, b"\0" + (MESSAGE_BYTES + 1).to_bytes(4, "big") + bytes(100)))
        _, _, trailers = await client.last_of(1)
        assert b"grpc-status\x018" in trailers, "RESOURCE_EXHAUSTED"


async def test_streams_with_even_or_older_numbers_are_not_opened(tmp_path: Path) -> None:
    """The relay keeps nothing for them either."""
    async with raw(tmp_path) as client:
        for stream in (2, 3, 1, 5):
            client.writer.write(call(stream) + frame(DATA, stream, message(0), END_STREAM))
        answered = set[int]()
        while 5 not in answered:
            answered.add((await client.of_any())[0])
        assert answered - {0} == {3, 5}
