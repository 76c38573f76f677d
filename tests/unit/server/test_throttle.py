"""What a container's bytes cost, and that they go on as they are paid for: all of them, in order."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysproc.server.frames import CALL, CARRIER, DATA, HEADERS, OTHER, PREFACE_BYTES, WINDOW_UPDATE, Frames
from sysproc.server.log_budget import LogBudget
from sysproc.server.streams import Held, Streams
from sysproc.server.throttle import Bucket, Rate, Throttle, Turns

PING, RESET = 6, 3
KINDS = st.sampled_from([DATA, HEADERS, WINDOW_UPDATE, PING, RESET, 0xFF])


def frame(kind: int, payload: bytes = b"", stream: int = 2) -> bytes:
    """A frame; its stream is one that no client opens, so that DATA are not read."""
    return len(payload).to_bytes(3, "big") + bytes([kind, 0, 0, 0, 0, stream]) + payload


class Clock:
    """A time that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def never(_: float, __: Callable[[], None]) -> None:
    """A loop that does not come to its timers."""


def connection(rate: Rate, clock: Callable[[], float] | None = None) -> Throttle:
    """The only connection of a container."""
    return on(Turns(Bucket(rate, clock or Clock()), never))


def on(turns: Turns) -> Throttle:
    """One connection of the container that has these tokens."""
    return Throttle(turns, Held(10**9), pytest.fail)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data, cut at these places."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[begin:end] for begin, end in pairwise(places)]


@given(st.lists(st.tuples(KINDS, st.binary(max_size=40)), max_size=12), st.lists(st.integers(0, 10**6), max_size=8))
def test_however_they_are_cut_the_same_frames_cost_the_same(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    data = b"P" * PREFACE_BYTES + b"".join(frame(kind, payload) for kind, payload in frames)
    costs = {DATA: CARRIER, HEADERS: CALL, WINDOW_UPDATE: CARRIER}
    meter, kept, passed, spent = Frames(Streams(Held(0))), b"", b"", 0.0
    for piece in pieces(data, cuts):
        kept += piece
        upto, cost = meter.paid(kept, 0, 10**6)
        passed, kept, spent = passed + kept[:upto], kept[upto:], spent + cost
    assert passed == data
    assert spent == pytest.approx(sum(costs.get(kind, OTHER) for kind, _ in frames))


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_garbage_is_passed_on_or_waits_and_never_fails(chunks: list[bytes]) -> None:
    throttle = connection(Rate(1, 3))
    passed = b"".join(throttle.passed(chunk) for chunk in chunks)
    assert b"".join(chunks).startswith(passed)
    assert throttle.waits in (0.0, CARRIER, OTHER, CALL)


def test_a_call_waits_for_its_token_and_what_follows_it_too() -> None:
    clock = Clock()
    throttle = connection(Rate(per_second=2, burst=1.05), clock)
    data = bytes(PREFACE_BYTES) + frame(HEADERS, b"first")
    assert throttle.passed(data + frame(HEADERS, b"second") + frame(DATA, b"of it")) == data
    assert throttle.waits
    assert throttle.passed(b"") == b""
    clock.now = 0.55
    assert throttle.passed(frame(PING)) == frame(HEADERS, b"second") + frame(DATA, b"of it")
    assert throttle.waits, "the ping has no token"
    clock.now = 2
    assert throttle.passed(b"") == frame(PING)
    assert not throttle.waits


def test_a_stream_flows_at_the_price_of_its_frames() -> None:
    throttle = connection(Rate(per_second=1, burst=10))
    data = bytes(PREFACE_BYTES) + frame(HEADERS) + 800 * frame(DATA, bytes(16384))
    assert throttle.passed(data) == data


def test_calls_and_resets_in_a_hurry_are_held_back() -> None:
    """CVE-2023-44487: each stream is ended as soon as it was begun."""
    clock = Clock()
    throttle = connection(Rate(per_second=10, burst=10), clock)
    flood = 1000 * (frame(HEADERS, b"x" * 50) + frame(RESET, b"\0\0\0\x08"))
    begun = throttle.passed(bytes(PREFACE_BYTES) + flood).count(b"x" * 50)
    assert begun == 9
    clock.now = 1
    assert throttle.passed(b"").count(b"x" * 50) <= 10
    assert throttle.waits


def test_all_connections_of_a_container_share_its_tokens() -> None:
    turns = Turns(Bucket(Rate(per_second=1, burst=3), Clock()), never)
    data = bytes(PREFACE_BYTES) + 2 * frame(HEADERS)
    assert on(turns).passed(data) == data
    assert on(turns).passed(data) == data[: -len(frame(HEADERS))]


def test_a_bucket_holds_no_more_than_its_burst() -> None:
    clock = Clock()
    bucket = Bucket(Rate(per_second=5, burst=10), clock)
    bucket.spend(10)
    assert bucket.wait_s(1) == pytest.approx(0.2)
    clock.now = 1
    assert bucket.tokens == pytest.approx(5)
    clock.now = 100
    assert bucket.tokens == 10


def test_those_who_wait_have_their_turn_one_after_the_other() -> None:
    clock, timers, served = Clock(), list[tuple[float, Callable[[], None]]](), list[str]()
    turns = Turns(Bucket(Rate(per_second=1, burst=2), clock), lambda wait_s, serve: timers.append((wait_s, serve)))
    turns.bucket.spend(2)

    def insatiable() -> None:
        served.append("first")
        turns.bucket.spend(1)
        turns.wait(1, insatiable)

    def modest() -> None:
        served.append("second")
        turns.bucket.spend(1)

    turns.wait(1, insatiable)
    turns.wait(1, modest)
    for second in range(1, 5):
        ((wait_s, serve),) = timers
        assert wait_s == pytest.approx(1)
        timers.clear()
        clock.now = second
        serve()
    assert served == ["first", "second", "first", "first"]


def test_of_one_containers_lines_so_many_are_written_and_the_rest_is_counted() -> None:
    clock = Clock()
    budget = LogBudget(Rate(per_second=1, burst=2), clock)
    assert [budget.unwritten(7) for _ in range(5)] == [0, 0, None, None, None]
    assert budget.unwritten(8) == 0, "another has its own"
    assert [budget.unwritten(None) for _ in range(50)] == [0] * 50, "the host has no bound"
    clock.now = 1
    assert budget.unwritten(7) == 3
