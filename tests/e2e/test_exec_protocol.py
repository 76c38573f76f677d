"""The Exec stream as a client in any language sees it: offsets both ways, attaching, what is refused and how.

Messages go over a plain channel, so that also those are sent that the SDK never would. What processes do is in
`tests.e2e.test_exec`.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Self

import grpc
import pytest

from nightos.sysproc.v1.process_service_pb2 import (
    ExecRequest,
    ExecResponse,
    ListExecsRequest,
    SpoolPolicy,
    WaitRequest,
    WindowSize,
)
from nightos.sysproc.v1.process_service_pb2_grpc import ProcessServiceStub
from nightos.sysproc.v1.ref_pb2 import ContainerRef
from sysproc.exec_files import ExecFiles
from sysproc.exec_kept import KEPT, MORE
from sysproc.exec_output import stored_bytes
from sysproc_client import Client, Container
from tests.e2e.daemon import RunningDaemon
from tests.waiting import wait_until

PATIENCE_S = 30


class Stream:
    """One call of Exec: `send` a message, `take` the answers until one is of a kind."""

    def __init__(self, stub: ProcessServiceStub, first: ExecRequest) -> None:
        self._outgoing: queue.SimpleQueue[ExecRequest | None] = queue.SimpleQueue()
        self._outgoing.put(first)
        self.call = stub.Exec(iter(self._outgoing.get, None), timeout=PATIENCE_S)
        self._answers: Iterator[ExecResponse] = iter(self.call)
        self.stdout, self.offsets = b"", list[int]()

    def send(self, **fields: object) -> None:
        """One more message, by the name of its kind."""
        self._outgoing.put(ExecRequest(**fields))  # type: ignore[arg-type]  # which fields there are is said in the proto

    def take(self, kind: str) -> ExecResponse:
        """Read until an answer of this kind; output on the way is collected."""
        for answer in self._answers:
            if answer.WhichOneof("response") == "stdout":
                self.offsets.append(answer.stdout.offset)
                self.stdout += answer.stdout.data
            if answer.WhichOneof("response") == kind:
                return answer
        raise AssertionError(f"the stream ended without {kind}")

    def refusal(self) -> grpc.RpcError:
        """The error with which it ends."""
        with pytest.raises(grpc.RpcError) as refusal:
            self.take("nothing of this name")
        return refusal.value

    def close(self) -> None:
        """Hang up."""
        self._outgoing.put(None)
        self.call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


Open = Callable[..., Stream]


@pytest.fixture
def box(client: Client) -> Container:
    return client.create()


@pytest.fixture
def stub(daemon: RunningDaemon) -> Iterator[ProcessServiceStub]:
    with grpc.insecure_channel(daemon.endpoint, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield ProcessServiceStub(channel)


@pytest.fixture
def streams(stub: ProcessServiceStub, box: Container) -> Iterator[Open]:
    """Opens streams that are closed at the end: streams(start={…}), streams(attach={…})."""
    with ExitStack() as stack:

        def open_stream(**kinds: dict[str, object]) -> Stream:
            ((kind, fields),) = kinds.items()
            message = getattr(ExecRequest, kind.capitalize())(container=ContainerRef(path=box.id), **fields)
            return stack.enter_context(Stream(stub, ExecRequest(**{kind: message})))

        yield open_stream


def status(error: grpc.RpcError) -> str:
    """NAME: details."""
    return f"{error.code().name}: {error.details()}"


# -- input


def test_input_that_overlaps_is_written_once(streams: Open) -> None:
    stream = streams(start={"argv": [b"cat"], "stdin": True})
    for offset, data in ((0, b"abc"), (0, b"abcdef"), (2, b"cdefgh"), (8, b"!"), (0, b"a")):
        stream.send(stdin=ExecRequest.Stdin(offset=offset, data=data))
    stream.send(close_stdin=ExecRequest.CloseStdin())
    exited = stream.take("exited").exited
    assert (exited.status.code, stream.stdout) == (0, b"abcdefgh!")


def test_a_gap_in_the_input_is_refused_and_the_process_lives(streams: Open, box: Container) -> None:
    stream = streams(start={"argv": [b"cat"], "stdin": True, "exec_id": "gap"})
    stream.take("started")
    stream.send(stdin=ExecRequest.Stdin(offset=1, data=b"x"))
    assert status(stream.refusal()).startswith("OUT_OF_RANGE: Input at 1 would leave a gap: 0 bytes are there.")
    again = streams(attach={"exec_id": "gap"})
    assert again.take("started").started.stdin_offset == 0
    again.send(stdin=ExecRequest.Stdin(offset=0, data=b"y"))
    again.send(close_stdin=ExecRequest.CloseStdin())
    assert again.take("exited").exited.status.code == 0
    assert again.stdout == b"y"


def test_input_without_stdin_is_refused(streams: Open) -> None:
    stream = streams(start={"argv": [b"sleep", b"1000"]})
    stream.send(stdin=ExecRequest.Stdin(data=b"x"))
    assert status(stream.refusal()).startswith("FAILED_PRECONDITION: ")


def test_input_after_its_end_is_refused_but_sending_again_is_not(streams: Open) -> None:
    stream = streams(start={"argv": [b"sh", b"-c", b"cat; sleep 1000"], "stdin": True})
    for _ in range(2):
        stream.send(stdin=ExecRequest.Stdin(offset=0, data=b"all"))
        stream.send(close_stdin=ExecRequest.CloseStdin())
    stream.take("stdout")
    stream.send(stdin=ExecRequest.Stdin(offset=2, data=b"l and more"))
    refusal = status(stream.refusal())
    assert refusal.startswith("FAILED_PRECONDITION: ") and "closed after 3 bytes" in refusal


def test_a_signal_passes_input_that_the_process_does_not_read(streams: Open) -> None:
    stream = streams(start={"argv": [b"sleep", b"1000"], "stdin": True})
    chunk = bytes(1 << 16)
    for number in range(75):
        stream.send(stdin=ExecRequest.Stdin(offset=number * len(chunk), data=chunk))
    stream.send(signal=ExecRequest.Signal(number=9))
    assert stream.take("exited").exited.status.signal == 9


def test_input_of_any_amount_arrives_whole_at_a_slow_reader(streams: Open) -> None:
    pieces = b"while dd bs=64k count=1 2>/dev/null | wc -c | grep -v ^0; do :; done"
    script = pieces + b" | awk '{ sum += $1 } END { print sum }'"
    stream = streams(start={"argv": [b"sh", b"-c", script], "stdin": True})
    for number in range(12):
        stream.send(stdin=ExecRequest.Stdin(offset=number << 20, data=bytes(1 << 20)))
    stream.send(close_stdin=ExecRequest.CloseStdin())
    stream.take("exited")
    assert stream.stdout == b"%d\n" % (12 << 20)


def test_two_who_write_are_one_input_by_offset(streams: Open) -> None:
    first = streams(start={"argv": [b"cat"], "stdin": True, "exec_id": "shared"})
    first.take("started")
    second = streams(attach={"exec_id": "shared"})
    second.take("started")
    first.send(stdin=ExecRequest.Stdin(offset=0, data=b"one"))
    while second.take("stdin_accepted").stdin_accepted.offset < 3:
        pass
    second.send(stdin=ExecRequest.Stdin(offset=3, data=b"two"))
    second.send(close_stdin=ExecRequest.CloseStdin())
    for stream in (first, second):
        assert stream.take("exited").exited.stdout_size == 6
        assert stream.stdout == b"onetwo"


# -- output


def test_output_has_offsets_without_gaps(streams: Open) -> None:
    stream = streams(start={"argv": [b"head", b"-c", b"2000000", b"/dev/zero"]})
    exited = stream.take("exited").exited
    assert exited.stdout_size == len(stream.stdout) == 2000000
    assert stream.offsets[0] == 0 and stream.offsets == sorted(set(stream.offsets))


def test_attaching_at_an_offset_begins_there(streams: Open) -> None:
    first = streams(start={"argv": [b"echo", b"0123456789"], "exec_id": "echo"})
    first.take("exited")
    for offset, expected in ((4, b"456789\n"), (11, b""), (None, b"0123456789\n")):
        again = streams(attach={"exec_id": "echo", **({} if offset is None else {"stdout_offset": offset})})
        assert again.take("exited").exited.status.code == 0
        assert again.stdout == expected


def test_attaching_beyond_what_there_is_is_refused(streams: Open) -> None:
    streams(start={"argv": [b"echo"], "exec_id": "short"}).take("exited")
    refusal = streams(attach={"exec_id": "short", "stdout_offset": 2}).refusal()
    assert status(refusal).startswith("OUT_OF_RANGE: ")


def test_what_was_received_and_freed_is_not_there_any_more(streams: Open) -> None:
    start = {"argv": [b"head", b"-c", b"3000000", b"/dev/zero"], "exec_id": "freed", "spool_bytes": 1 << 16}
    streams(start=start).take("exited")
    kept = streams(attach={"exec_id": "freed"}).take("started").started.stdout_offset
    assert kept > 0
    refusal = streams(attach={"exec_id": "freed", "stdout_offset": kept - 1}).refusal()
    assert status(refusal).startswith("OUT_OF_RANGE: ")


def test_where_the_oldest_is_dropped_an_old_offset_begins_later(streams: Open) -> None:
    start = {
        "argv": [b"sh", b"-c", b"head -c 3000000 /dev/zero; echo end"],
        "exec_id": "dropped",
        "spool_bytes": 1 << 16,
        "spool_policy": SpoolPolicy.SPOOL_POLICY_DROP_OLDEST,
    }
    streams(start=start).take("exited")
    again = streams(attach={"exec_id": "dropped", "stdout_offset": 1})
    again.take("exited")
    assert again.offsets[0] > 1 and again.stdout.endswith(b"end\n")


def test_more_received_than_was_sent_is_refused(streams: Open) -> None:
    stream = streams(start={"argv": [b"sleep", b"1000"]})
    stream.take("started")
    stream.send(received=ExecRequest.Received(stdout_offset=1))
    assert status(stream.refusal()).startswith("OUT_OF_RANGE: ")


def test_a_reader_that_confirms_nothing_more_keeps_its_output_for_a_second_try(streams: Open) -> None:
    start = {"argv": [b"sh", b"-c", b"head -c 200000 /dev/zero; echo"], "exec_id": "kept", "spool_bytes": 1 << 17}
    stream = streams(start=start)
    stream.send(received=ExecRequest.Received(stdout_offset=0))
    while len(stream.stdout) < 1 << 17:
        stream.take("stdout")
    stream.close()
    again = streams(attach={"exec_id": "kept", "stdout_offset": 0})
    assert again.take("exited").exited.stdout_size == 200001
    assert len(again.stdout) == 200001


def test_what_was_confirmed_occupies_no_disk_after_the_end(
    streams: Open, box: Container, daemon: RunningDaemon
) -> None:
    script = b"head -c 1000000 /dev/zero; read go; echo end"
    stream = streams(start={"argv": [b"sh", b"-c", script], "exec_id": "over", "stdin": True})
    while len(stream.stdout) < 1000000:
        stream.take("stdout")
    stream.send(received=ExecRequest.Received(stdout_offset=1000000))
    stream.send(stdin=ExecRequest.Stdin(data=b"go\n"))
    stream.take("exited")
    files = ExecFiles(daemon.state_dir / "containers" / box.id / "execs" / "over")
    wait_until(lambda: stored_bytes(files) < 100_000, "what was confirmed is freed")
    again = streams(attach={"exec_id": "over"})
    assert again.take("started").started.stdout_offset == 1000000
    again.take("exited")
    assert again.stdout == b"end\n", "what was not confirmed is kept"


def test_the_output_of_ended_processes_is_bounded_and_the_oldest_goes_first(
    streams: Open, stub: ProcessServiceStub, box: Container
) -> None:
    for number in range(3):
        start = {"argv": [b"head", b"-c", b"60000000", b"/dev/zero"], "spool_bytes": 1 << 26}
        with streams(start={**start, "exec_id": f"n{number}"}) as stream:
            stream.take("started")
        stub.Wait(WaitRequest(container=ContainerRef(path=box.id), exec_id=f"n{number}"), timeout=PATIENCE_S)

    def kept_from(number: int) -> int:
        with streams(attach={"exec_id": f"n{number}"}) as stream:
            return stream.take("started").started.stdout_offset

    wait_until(lambda: kept_from(0) == 60000000, "the oldest is forgotten")
    assert (kept_from(1), kept_from(2)) == (0, 0)


def test_each_of_two_readers_gets_everything(streams: Open) -> None:
    start = {"argv": [b"sh", b"-c", b"read go; head -c 1000000 /dev/urandom"], "exec_id": "two", "stdin": True}
    first = streams(start={**start, "spool_bytes": 1 << 16})
    first.take("started")
    second = streams(attach={"exec_id": "two"})
    second.take("started")
    first.send(stdin=ExecRequest.Stdin(data=b"go\n"))
    reading = threading.Thread(target=second.take, args=("exited",))
    reading.start()
    first.take("exited")
    reading.join()
    assert len(first.stdout) == 1000000 and first.stdout == second.stdout


# -- what is refused


@pytest.mark.parametrize(
    ("start", "field"),
    [
        ({}, "start.argv"),
        ({"argv": [b""]}, "start.argv"),
        ({"argv": [b"a\0b"]}, "start.argv"),
        ({"argv": [b"x" * 200_000]}, "start.argv"),
        ({"argv": [b"true"], "uid": 65536}, "start.uid"),
        ({"argv": [b"true"], "gid": 65536}, "start.gid"),
        ({"argv": [b"true"], "working_directory": b"relative"}, "start.working_directory"),
        ({"argv": [b"true"], "working_directory": b"/a\0b"}, "start.working_directory"),
        ({"argv": [b"true"], "spool_bytes": 1}, "start.spool_bytes"),
        ({"argv": [b"true"], "spool_bytes": 1 << 40}, "start.spool_bytes"),
        ({"argv": [b"true"], "spool_policy": 99}, "start.spool_policy"),
        ({"argv": [b"true"], "terminal": WindowSize(rows=0, columns=80)}, "start.terminal.rows"),
        ({"argv": [b"true"], "terminal": WindowSize(rows=24, columns=65536)}, "start.terminal.columns"),
        ({"argv": [b"true"], "exec_id": "../x"}, "start.exec_id"),
    ],
)
def test_a_start_that_makes_no_sense_names_the_field(streams: Open, start: dict[str, object], field: str) -> None:
    refusal = streams(start=start).refusal()
    assert status(refusal).startswith("INVALID_ARGUMENT: ")
    assert field in (refusal.details() or "")


@pytest.mark.parametrize(
    "message",
    [
        {"signal": ExecRequest.Signal(number=0)},
        {"signal": ExecRequest.Signal(number=65)},
        {"resize": WindowSize(rows=0, columns=0)},
    ],
    ids=str,
)
def test_a_later_message_that_makes_no_sense_ends_the_stream_only(
    streams: Open, box: Container, message: dict[str, object]
) -> None:
    stream = streams(start={"argv": [b"sleep", b"1000"], "exec_id": "on"})
    stream.take("started")
    stream.send(**message)
    assert status(stream.refusal()).startswith("INVALID_ARGUMENT: ")
    assert [(one.exec_id, one.HasField("exited")) for one in box.execs()] == [("on", False)]


def test_the_first_message_has_to_open(stub: ProcessServiceStub) -> None:
    with Stream(stub, ExecRequest(close_stdin=ExecRequest.CloseStdin())) as stream:
        assert status(stream.refusal()).startswith("INVALID_ARGUMENT: ")


def test_nothing_at_all_is_refused(stub: ProcessServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as refusal:
        list(stub.Exec(iter(()), timeout=PATIENCE_S))
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_an_exec_that_is_not_there_is_not_found(streams: Open, stub: ProcessServiceStub, box: Container) -> None:
    assert status(streams(attach={"exec_id": "nosuch"}).refusal()).startswith("NOT_FOUND: ")
    with pytest.raises(grpc.RpcError) as refusal:
        stub.Wait(WaitRequest(container=ContainerRef(path=box.id), exec_id="nosuch"))
    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND


# -- waiting and lists


def test_waiting_has_the_deadline_of_its_caller_and_can_be_done_again(
    streams: Open, stub: ProcessServiceStub, box: Container
) -> None:
    stream = streams(start={"argv": [b"sleep", b"1000"], "exec_id": "waited"})
    stream.take("started")
    request = WaitRequest(container=ContainerRef(path=box.id), exec_id="waited")
    with pytest.raises(grpc.RpcError) as refusal:
        stub.Wait(request, timeout=0.3)
    assert refusal.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    stream.send(signal=ExecRequest.Signal(number=15))
    for _ in range(2):
        assert stub.Wait(request, timeout=PATIENCE_S).exited.status.signal == 15


def test_a_process_outlives_its_stream(streams: Open, box: Container) -> None:
    stream = streams(start={"argv": [b"sh", b"-c", b"read line; exit 6"], "stdin": True, "exec_id": "left"})
    stream.take("started")
    stream.close()
    again = streams(attach={"exec_id": "left"})
    again.send(stdin=ExecRequest.Stdin(data=b"\n"))
    assert again.take("exited").exited.status.code == 6


def test_the_newest_that_have_ended_are_kept(stub: ProcessServiceStub, box: Container) -> None:
    last = KEPT + MORE + 8
    for number in range(last):
        box.exec(["true"], exec_id=f"n{number}", stdin=False).wait()
    request = ListExecsRequest(container=ContainerRef(path=box.id))
    wait_until(lambda: len(stub.ListExecs(request).execs) < KEPT + MORE, "the oldest are forgotten")
    kept = [one.exec_id for one in stub.ListExecs(request).execs]
    assert len(kept) >= KEPT
    assert kept == [f"n{number}" for number in range(last - len(kept), last)]
