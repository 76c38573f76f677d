"""Calls over a real channel to a service that answers as a test says: retries, deadlines, lost answers, channels."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass

from nightos.sysproc.v1 import container_service_pb2 as containers
from nightos.sysproc.v1 import process_service_pb2 as processes
from nightos.sysproc.v1.container_pb2 import Container, ExitStatus
from sysproc_client import Client, TimedOut, Unavailable
from sysproc_client._core.channel_options import STREAMS_PER_CHANNEL

CONTAINERS: Any = containers.DESCRIPTOR.services_by_name["ContainerService"]
PROCESSES: Any = processes.DESCRIPTOR.services_by_name["ProcessService"]
# What gRPC says of a connection that ended under a call.
LOST = (grpc.StatusCode.UNAVAILABLE, "Stream removed (Socket closed)")
REFUSED = (grpc.StatusCode.UNAVAILABLE, "Stream removed (RST_STREAM (Received RST_STREAM with error code 7))")

Outcome = Callable[[grpc.ServicerContext], None]


def fails(code: grpc.StatusCode, words: str) -> Outcome:
    return lambda context: context.abort(code, words)


def succeeds(_: grpc.ServicerContext) -> None:
    return


class Service:
    """Answers each call with the next outcome; notes what was asked."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.asked: list[Any] = []

    def _next(self, request: object, context: grpc.ServicerContext) -> None:
        self.asked.append(request)
        if self.outcomes:
            self.outcomes.pop(0)(context)

    def CreateContainer(
        self, request: containers.CreateContainerRequest, context: grpc.ServicerContext
    ) -> containers.CreateContainerResponse:
        self._next(request, context)
        return containers.CreateContainerResponse(container=Container(id=7))

    def UpdateContainer(
        self, request: containers.UpdateContainerRequest, context: grpc.ServicerContext
    ) -> containers.UpdateContainerResponse:
        self._next(request, context)
        return containers.UpdateContainerResponse()

    def DestroyContainer(
        self, request: containers.DestroyContainerRequest, context: grpc.ServicerContext
    ) -> Iterator[containers.DestroyContainerResponse]:
        yield destroyed(8)
        self._next(request, context)
        yield destroyed(7)

    def Exec(
        self, requests: Iterator[processes.ExecRequest], context: grpc.ServicerContext
    ) -> Iterator[processes.ExecResponse]:
        self._next(next(requests), context)
        yield processes.ExecResponse(started=processes.ExecResponse.Started())
        yield processes.ExecResponse(stdout=processes.ExecResponse.Output(data=b"x"))
        for request in requests:
            if request.HasField("signal"):
                status = ExitStatus(signal=request.signal.number)
                yield processes.ExecResponse(exited=processes.ExecResponse.Exited(status=status))
                return

    def handlers(self) -> Iterator[grpc.GenericRpcHandler]:
        """What a server is given."""
        for descriptor in (CONTAINERS, PROCESSES):
            methods = {
                method.name: self._handler(method) for method in descriptor.methods if hasattr(self, method.name)
            }
            yield grpc.method_handlers_generic_handler(descriptor.full_name, methods)

    def _handler(self, method: Any) -> "grpc.RpcMethodHandler[Any, Any]":
        sides = ["stream" if many else "unary" for many in (method.client_streaming, method.server_streaming)]
        make: Any = getattr(grpc, f"{sides[0]}_{sides[1]}_rpc_method_handler")
        request, response = map(GetMessageClass, (method.input_type, method.output_type))
        handler: grpc.RpcMethodHandler[Any, Any] = make(
            getattr(self, method.name), request.FromString, response.SerializeToString
        )
        return handler


def destroyed(container_id: int) -> containers.DestroyContainerResponse:
    return containers.DestroyContainerResponse(destroyed=containers.DestroyContainerResponse.Destroyed(id=container_id))


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def endpoint(service: Service, tmp_path: Path) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(max_workers=200), options=[("grpc.max_concurrent_streams", 100)])
    server.add_generic_rpc_handlers(tuple(service.handlers()))
    server.add_insecure_port(f"unix:{tmp_path}/s.sock")
    server.start()
    yield f"unix://{tmp_path}/s.sock"
    server.stop(0).wait()


@pytest.fixture
def client(endpoint: str) -> Iterator[Client]:
    with Client(endpoint) as connected:
        yield connected


def test_a_create_whose_answer_was_lost_is_the_same_create_again(service: Service, client: Client) -> None:
    service.outcomes = [fails(*LOST), fails(*LOST)]
    assert client.create(name="web").id == f"{7:016x}"
    first, *others = service.asked
    assert isinstance(first, containers.CreateContainerRequest) and first.request_id
    assert others == [first, first]


def test_a_destroy_that_was_cut_goes_on_and_tells_each_id_once(service: Service, client: Client) -> None:
    service.outcomes = [fails(*LOST)]
    assert client.at("web").destroy() == [f"{8:016x}", f"{7:016x}"]
    assert service.asked[0] == service.asked[1]


def test_what_would_mean_something_else_the_second_time_is_not_repeated(service: Service, client: Client) -> None:
    service.outcomes = [fails(*LOST)]
    with pytest.raises(Unavailable) as caught:
        client.at("web").update(pids=3, etag="abc")
    assert caught.value.reason == "ANSWER_LOST"
    assert len(service.asked) == 1


def test_a_service_that_does_not_come_back_is_given_up(service: Service, endpoint: str) -> None:
    service.outcomes = [fails(*LOST)] * 100
    with Client(endpoint, patience=0.2) as client, pytest.raises(Unavailable) as caught:
        client.create()
    assert caught.value.reason == "ANSWER_LOST"
    assert len(service.asked) > 1


def test_a_call_that_is_not_answered_says_so(service: Service, endpoint: str) -> None:
    hold = threading.Event()

    def wait(_: grpc.ServicerContext) -> None:
        hold.wait(60)

    service.outcomes = [wait]
    with Client(endpoint, timeout=0.2) as client, pytest.raises(TimedOut, match=r"0\.2 s"):
        client.create()
    hold.set()


@pytest.mark.parametrize("words", [LOST, REFUSED])
def test_a_process_whose_stream_failed_is_taken_up_again(
    service: Service, client: Client, words: tuple[grpc.StatusCode, str]
) -> None:
    service.outcomes = [fails(*words)]
    process = client.at("web").exec(["cat"])
    assert next(iter(process)).data == b"x"
    again = "attach" if words is LOST else "start"
    assert [one.WhichOneof("request") for one in service.asked] == ["start", again]


def test_a_process_is_given_up_when_its_service_stays_away(service: Service, endpoint: str) -> None:
    service.outcomes = [fails(*LOST)] * 100
    told: list[str] = []
    with Client(endpoint, patience=4, on_away=told.append) as client, pytest.raises(Unavailable) as caught:
        client.at("web").exec(["cat"]).wait()
    assert caught.value.reason == "ANSWER_LOST"
    assert told == [endpoint]


def test_more_processes_than_one_connection_carries_run_at_once(service: Service, client: Client) -> None:
    running = []
    for _ in range(2 * STREAMS_PER_CHANNEL + 1):
        process = client.at("web").exec(["cat"])
        chunks = iter(process)
        next(chunks)
        running.append((process, chunks))
    assert client.create().id
    for process, chunks in running:
        process.signal(9)
        assert list(chunks) == []
    assert set(client._connection.channels._room.streams.values()) == {0}


def test_a_process_that_was_never_begun_is_not_begun_to_be_killed(service: Service, client: Client) -> None:
    with client.at("web").exec(["cat"]):
        pass
    assert service.asked == []
