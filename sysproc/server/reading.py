"""Requests from their bytes; of a stream, that its first message and no other names a target.

What a target is, and whether the caller may reach it, is not decided here: see `sysproc.server.access` and
`sysproc.server.interceptor`.
"""

from collections.abc import AsyncIterator

from google.protobuf.message import DecodeError, Message

from sysproc.errors import InvalidArgument
from sysproc.server.access import Method


def read(method: Method, sent: bytes) -> Message:
    """A request from its bytes; InvalidArgument if they are none."""
    try:
        return method.request.FromString(sent)
    except DecodeError as error:
        raise InvalidArgument(
            f"The request cannot be read as {method.request.DESCRIPTOR.full_name}.",
            resolution="Send a message of this type; text fields hold UTF-8.",
            reason="BAD_MESSAGE",
        ) from error


async def read_all(method: Method, sent: AsyncIterator[bytes]) -> AsyncIterator[Message]:
    """A stream of requests from their bytes."""
    async for one in sent:
        yield read(method, one)


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
