"""Messages in the DATA of streams: what they cost, and what the service holds because of them."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysproc.server.frames import (
    CALL,
    CARRIER,
    DATA,
    END_STREAM,
    HEADERS,
    MESSAGE,
    PADDED,
    PREFACE_BYTES,
    RESET,
    Answers,
    Frames,
)
from sysproc.server.streams import MOST_OPEN, Held, Streams
from sysproc.server.throttle import Bucket, Rate, Throttle, Turns

PREFACE = b"P" * PREFACE_BYTES


def frame(kind: int, stream: int, payload: bytes = b"", flags: int = 0) -> bytes:
    """A frame, with the reserved bit of its stream set."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + (stream | 1 << 31).to_bytes(4, "big") + payload


def message(length: int) -> bytes:
    """A message of gRPC."""
    return b"\0" + length.to_bytes(4, "big") + b"m" * length


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data, cut at these places."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[begin:end] for begin, end in pairwise(places)]


class Connection:
    """One connection with plenty of tokens, of a container that may have `most` bytes held."""

    def __init__(self, held: Held | None = None, tokens: float = 10**9) -> None:
        self.held, self.refused = held or Held(10**9), list[str]()
        turns = Turns(Bucket(Rate(1, tokens), lambda: 0.0), lambda _, __: None)
        self.throttle = Throttle(turns, self.held, self.refused.append)
        self.throttle.passed(PREFACE)


@given(
    st.lists(st.tuples(st.sampled_from([1, 3, 5]), st.integers(0, 50)), max_size=12),
    st.integers(1, 30),
    st.lists(st.integers(0, 10**6), max_size=8),
)
def test_messages_are_counted_and_held_however_streams_frames_and_reads_cut_them(
    sent: list[tuple[int, int]], frame_bytes: int, cuts: list[int]
) -> None:
    """The streams take turns, frame by frame; each holds its last message."""
    todo = {stream: b"".join(message(length) for of, length in sent if of == stream) for stream in (1, 3, 5)}
    last = dict(sent)
    data, frames = PREFACE + b"".join(frame(HEADERS, stream) for stream in todo), 0
    while any(todo.values()):
        for stream, rest in todo.items():
            data += frame(DATA, stream, rest[:frame_bytes])
            todo[stream] = rest[frame_bytes:]
            frames += 1
    held = Held(10**9)
    streams = Streams(held)
    meter, kept, passed, spent = Frames(streams), b"", b"", 0.0
    for piece in pieces(data, cuts):
        kept += piece
        upto, cost = meter.paid(kept, 0, 10**6)
        passed, kept, spent = passed + kept[:upto], kept[upto:], spent + cost
    assert passed == data
    more = len(sent) - len(last)  # the first of each stream is part of the call
    assert spent == pytest.approx(3 * CALL + frames * CARRIER + more * MESSAGE)
    assert held.bytes == sum(last.values())
    streams.close()
    assert held.bytes == 0


def test_messages_wait_for_their_tokens_in_the_middle_of_a_frame() -> None:
    meter = Frames(Streams(Held(10**9)))
    data = PREFACE + frame(HEADERS, 1) + frame(DATA, 1, 1000 * message(0))
    credit = CALL + CARRIER + 3.5 * MESSAGE
    upto, cost = meter.paid(data, 0, credit)
    assert meter.unpaid
    assert data[upto:] == 996 * message(0)
    assert cost == pytest.approx(CALL + CARRIER + 3 * MESSAGE)
    end, cost = meter.paid(data[upto:], 0, 1000)
    assert end == len(data) - upto
    assert cost == pytest.approx(996 * MESSAGE)


def test_what_was_kept_of_a_message_shorter_than_a_header_waits_too() -> None:
    connection = Connection(tokens=CALL + CARRIER + 0.5 * MESSAGE)
    data = frame(HEADERS, 1) + frame(DATA, 1, 2 * message(0))
    assert connection.throttle.passed(data) == data[:-5]
    assert connection.throttle.waits


@pytest.mark.parametrize("who", ["client resets", "service resets", "service ends", "connection closes"])
def test_what_was_held_for_a_stream_is_given_back_when_it_ends(who: str) -> None:
    connection = Connection()
    connection.throttle.passed(frame(HEADERS, 1) + frame(DATA, 1, message(100), END_STREAM) + frame(HEADERS, 3))
    assert connection.held.bytes == 100, "the call has not ended"
    match who:
        case "client resets":
            connection.throttle.passed(frame(RESET, 1, bytes(4)))
        case "service resets":
            connection.throttle.answered(frame(RESET, 1, bytes(4)))
        case "service ends":
            connection.throttle.answered(frame(HEADERS, 1, b"trailers", END_STREAM))
        case _:
            connection.throttle.close()
    assert connection.held.bytes == 0
    connection.throttle.passed(frame(DATA, 1, message(100)))
    assert connection.held.bytes == 0, "what is still on its way is thrown away by grpcio"


@given(st.lists(st.tuples(st.sampled_from([DATA, HEADERS, RESET]), st.integers(1, 9), st.binary(max_size=30))))
def test_the_services_frames_are_read_however_they_are_cut(frames: list[tuple[int, int, bytes]]) -> None:
    streams = Streams(held := Held(10**9))
    for stream in range(1, 10, 2):
        streams.begin(stream)
        streams.received(stream, message(stream), 0, stream + 5, 1)
    answers = Answers(streams)
    data = b"".join(frame(kind, stream, payload, stream & END_STREAM) for kind, stream, payload in frames)
    for at in range(0, len(data), 7):
        answers.read(data[at : at + 7])
    assert held.bytes == sum({1, 3, 5, 7, 9} - {stream for _, stream, _ in frames})


def test_a_container_with_too_much_in_messages_loses_the_connection_that_goes_on() -> None:
    held = Held(1000)
    modest, greedy = Connection(held), Connection(held)
    modest.throttle.passed(frame(HEADERS, 1) + frame(DATA, 1, message(400)))
    greedy.throttle.passed(frame(HEADERS, 1) + frame(DATA, 1, b"\0\0\0\4\0" + 500 * b"m"))
    assert greedy.refused == []
    assert greedy.throttle.passed(frame(DATA, 1, 101 * b"m")) == b""
    assert greedy.throttle.excess
    assert greedy.refused == ["more than 1000 bytes in messages of one container"]
    greedy.throttle.close()
    assert modest.throttle.passed(frame(DATA, 1, message(1000))) == frame(DATA, 1, message(1000))
    assert (held.bytes, modest.refused) == (1000, [])


def test_a_client_that_opens_streams_and_reads_no_answers_loses_its_connection() -> None:
    connection = Connection()
    connection.throttle.passed(b"".join(frame(HEADERS, 1 + 2 * number) for number in range(MOST_OPEN)))
    assert connection.refused == []
    connection.throttle.passed(frame(HEADERS, 3 + 2 * MOST_OPEN))
    assert connection.throttle.excess
    assert len(connection.refused) == 1


def test_streams_that_grpcio_does_not_open_are_not_kept() -> None:
    """Even numbers, and numbers below one that was used."""
    connection = Connection()
    for stream in (2, 9, 7, 9, 0):
        connection.throttle.passed(frame(HEADERS, stream) + frame(DATA, stream, message(stream)))
    assert connection.held.bytes == 9
    connection.throttle.passed(frame(DATA, 9, message(20), PADDED))
    assert connection.held.bytes == 9, "grpcio ends a stream with padded DATA"
