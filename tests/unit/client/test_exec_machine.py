"""The exec state machine against a service that cuts streams anywhere: nothing lost, nothing doubled."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightos.sysproc.v1.process_service_pb2 import ExecRequest, ExecResponse
from sysproc_client._core.errors import AlreadyExists, NotFound
from sysproc_client._core.exec_machine import STDIN_WINDOW, ExecMachine, State
from sysproc_client._core.retry import Fate


class Service:
    """What a service keeps of one exec: output by offset, accepted input. A plain model of the proto's contract."""

    def __init__(self, output: bytes) -> None:
        self.output, self.input, self.closed, self.known = output, b"", False, False

    def open(self, request: ExecRequest) -> int:
        if request.WhichOneof("request") == "start":
            assert not self.known, "a Start that has arrived is not sent again"
            self.known = True
            return 0
        return request.attach.stdout_offset

    def take(self, request: ExecRequest) -> ExecResponse | None:
        if request.WhichOneof("request") == "stdin":
            offset, data = request.stdin.offset, request.stdin.data
            assert offset <= len(self.input), "no gap"
            self.input += data[len(self.input) - offset :]
            return ExecResponse(stdin_accepted=ExecResponse.StdinAccepted(offset=len(self.input)))
        if request.WhichOneof("request") == "close_stdin":
            self.closed = True
        return None


@given(
    output=st.binary(max_size=400),
    given_input=st.binary(max_size=400_000),
    cuts=st.lists(st.integers(0, 12), max_size=12),
    chunk=st.integers(1, 50),
    overlap=st.integers(0, 9),
)
def test_streams_that_are_cut_anywhere_lose_and_double_nothing(
    output: bytes, given_input: bytes, cuts: list[int], chunk: int, overlap: int
) -> None:
    service, machine, received = Service(output), ExecMachine(ExecRequest.Start()), b""
    machine.write(given_input)
    machine.close_stdin()
    for steps in [*cuts, None]:
        at = max(0, service.open(machine.opening()) - overlap)
        left = steps if steps is not None else 10**6
        started = ExecResponse(started=ExecResponse.Started(stdin_offset=len(service.input)))
        pending = [started]
        while left > 0:
            left -= 1
            for response in pending:
                received += b"".join(one.data for one in machine.feed(response))
            pending = [answer for request in machine.to_send() if (answer := service.take(request)) is not None]
            if at < len(output):
                pending.append(ExecResponse(stdout=ExecResponse.Output(offset=at, data=output[at : at + chunk])))
                at += chunk
            elif not pending:
                break
        machine.lost()
    assert received == output
    assert service.input == given_input
    assert service.closed


def test_a_start_that_never_arrived_is_sent_again() -> None:
    machine = ExecMachine(ExecRequest.Start())
    assert machine.opening().WhichOneof("request") == "start"
    machine.lost()
    assert machine.opening().WhichOneof("request") == "attach"
    assert machine.lost(Fate.FINAL, NotFound("no such process"))
    assert machine.opening().start.exec_id == machine.start.exec_id


@pytest.mark.parametrize("fate", [Fate.REFUSED, Fate.UNSENT])
def test_a_start_that_the_service_has_not_taken_is_sent_again_at_once(fate: Fate) -> None:
    machine = ExecMachine(ExecRequest.Start())
    machine.opening()
    machine.lost(fate)
    assert machine.opening().WhichOneof("request") == "start"


def test_a_start_that_overtook_its_repetition_is_attached_to() -> None:
    machine = ExecMachine(ExecRequest.Start())
    machine.opening()
    machine.lost()
    machine.opening()
    machine.lost(Fate.FINAL, NotFound("not yet"))
    machine.opening()
    assert machine.lost(Fate.FINAL, AlreadyExists("by now"))
    assert machine.opening().WhichOneof("request") == "attach"


def test_an_exec_id_that_another_has_is_no_repetition() -> None:
    machine = ExecMachine(ExecRequest.Start())
    machine.opening()
    assert not machine.lost(Fate.FINAL, AlreadyExists("another's"))


def test_a_service_that_contradicts_itself_is_given_up() -> None:
    machine, rounds = ExecMachine(ExecRequest.Start()), 0
    machine.opening()
    machine.lost()
    while machine.opening() and machine.lost(Fate.FINAL, NotFound("no")):
        machine.opening()
        machine.lost(Fate.FINAL, AlreadyExists("yes"))
        rounds += 1
    assert 0 < rounds < 10


def test_input_beyond_the_window_waits_and_a_signal_does_not() -> None:
    machine = ExecMachine(ExecRequest.Start())
    machine.opening()
    list(machine.feed(ExecResponse(started=ExecResponse.Started())))
    machine.write(bytes(5 * STDIN_WINDOW))
    machine.close_stdin()
    sent = list(machine.to_send())
    assert sum(len(one.stdin.data) for one in sent) == STDIN_WINDOW
    assert not any(one.HasField("close_stdin") for one in sent)
    machine.signal(9)
    assert [one.signal.number for one in machine.to_send()] == [9]
    list(machine.feed(ExecResponse(stdin_accepted=ExecResponse.StdinAccepted(offset=STDIN_WINDOW // 2))))
    assert sum(len(one.stdin.data) for one in machine.to_send()) == STDIN_WINDOW // 2


def test_nothing_is_sent_before_the_service_has_answered() -> None:
    machine = ExecMachine(ExecRequest.Start())
    machine.opening()
    machine.write(b"x")
    assert list(machine.to_send()) == []
    assert machine.state is State.UNSURE


def test_who_joins_asks_for_what_is_kept_and_types_where_others_stopped() -> None:
    machine = ExecMachine(ExecRequest.Start(exec_id="x"))
    machine.only_attach()
    machine.write(b"mine")
    opening = machine.opening()
    assert opening.attach.exec_id == "x" and not opening.attach.HasField("stdout_offset")
    assert list(machine.feed(ExecResponse(started=ExecResponse.Started(stdout_offset=100, stdin_offset=7)))) == []
    assert [(one.stdin.offset, one.stdin.data) for one in machine.to_send()] == [(7, b"mine")]
    output = ExecResponse(stdout=ExecResponse.Output(offset=100, data=b"new"))
    assert [(chunk.data, chunk.lost) for chunk in machine.feed(output)] == [(b"new", 0)]
    machine.lost()
    assert machine.opening().attach.stdout_offset == 103


def test_who_joins_starts_nothing() -> None:
    machine = ExecMachine(ExecRequest.Start(exec_id="x"))
    machine.only_attach()
    machine.opening()
    assert machine.lost(Fate.REFUSED, NotFound("no such process")) is False
    assert machine.opening().WhichOneof("request") == "attach"


def test_input_waits_until_a_second_stream_has_said_where_it_goes_on() -> None:
    machine = ExecMachine(ExecRequest.Start(exec_id="x"))
    machine.opening()
    list(machine.feed(ExecResponse(started=ExecResponse.Started())))
    machine.write(b"input")
    machine.lost()
    machine.opening()
    assert list(machine.to_send()) == []
    list(machine.feed(ExecResponse(started=ExecResponse.Started(stdin_offset=2))))
    assert [one.stdin.data for one in machine.to_send()] == [b"put"]
