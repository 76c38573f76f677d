"""What happens around every call, through a real gRPC server: who may, what is named, how errors look."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2
from structlog.testing import capture_logs

from nightos.sysproc.v1 import container_service_pb2 as containers
from nightos.sysproc.v1 import process_service_pb2 as processes
from nightos.sysproc.v1.ref_pb2 import ContainerRef
from sysproc.errors import FailedPrecondition
from sysproc.server.access import served
from sysproc.server.call import request_key
from sysproc.server.interceptor import written
from sysproc.server.peer import UNKNOWN
from sysproc.storage import requests
from tests.unit.server.wire import DEEP, HOST, NAMELESS, SERVICES, WEB, WORKER, Wire, info_of, wire


@pytest.mark.parametrize(
    ("ref", "found"),
    [
        (ContainerRef(id=WEB), WEB),
        (ContainerRef(path="web"), WEB),
        (ContainerRef(path="web/worker"), WORKER),
        (ContainerRef(path="0000000000c0ffee"), NAMELESS),
        (ContainerRef(path="web/worker/0000000000c0ffee/deep"), DEEP),
    ],
)
async def test_the_container_that_is_named_is_handed_on(tmp_path: Path, ref: ContainerRef, found: int) -> None:
    async with wire(tmp_path) as it:
        await it.call("ContainerService/GetContainer", containers.GetContainerRequest(container=ref))
        ((call, _),) = it.answers.seen
        assert call.container.id == found


@pytest.mark.parametrize(
    ("ref", "code", "reason"),
    [
        (ContainerRef(id=99), grpc.StatusCode.NOT_FOUND, "CONTAINER_NOT_FOUND"),
        (ContainerRef(path="00000000000000ff"), grpc.StatusCode.NOT_FOUND, "CONTAINER_NOT_FOUND"),
        (ContainerRef(path="worker"), grpc.StatusCode.NOT_FOUND, "CONTAINER_NOT_FOUND"),
        (ContainerRef(path="web/0000000000c0ffee"), grpc.StatusCode.NOT_FOUND, "CONTAINER_NOT_FOUND"),
        (ContainerRef(id=0), grpc.StatusCode.INVALID_ARGUMENT, "BAD_REFERENCE"),
        (ContainerRef(path="."), grpc.StatusCode.INVALID_ARGUMENT, "BAD_REFERENCE"),
        (ContainerRef(path="0000000000000000"), grpc.StatusCode.INVALID_ARGUMENT, "BAD_REFERENCE"),
        (ContainerRef(), grpc.StatusCode.INVALID_ARGUMENT, "BAD_REFERENCE"),
        (None, grpc.StatusCode.INVALID_ARGUMENT, "BAD_REFERENCE"),
        (ContainerRef(path=""), grpc.StatusCode.INVALID_ARGUMENT, "BAD_REFERENCE"),
        (ContainerRef(path="web/"), grpc.StatusCode.INVALID_ARGUMENT, "BAD_REFERENCE"),
        (ContainerRef(path="/web"), grpc.StatusCode.INVALID_ARGUMENT, "BAD_REFERENCE"),
        (ContainerRef(path="web/../web"), grpc.StatusCode.INVALID_ARGUMENT, "BAD_REFERENCE"),
        (ContainerRef(path="WEB"), grpc.StatusCode.INVALID_ARGUMENT, "BAD_REFERENCE"),
        (ContainerRef(path="web\0"), grpc.StatusCode.INVALID_ARGUMENT, "BAD_REFERENCE"),
        (ContainerRef(path="a/" * 100_000 + "a"), grpc.StatusCode.INVALID_ARGUMENT, "BAD_REFERENCE"),
    ],
)
async def test_what_names_no_container_never_reaches_the_service(
    tmp_path: Path, ref: ContainerRef | None, code: grpc.StatusCode, reason: str
) -> None:
    async with wire(tmp_path) as it:
        request = containers.GetContainerRequest(container=ref)
        info = await it.refused("ContainerService/GetContainer", request, code)
        assert info.reason == reason


@pytest.mark.parametrize("ref", [None, ContainerRef(), ContainerRef(id=0), ContainerRef(path=".")])
async def test_the_host_is_named_where_a_parent_is(tmp_path: Path, ref: ContainerRef | None) -> None:
    async with wire(tmp_path) as it:
        await it.call("ContainerService/CreateContainer", containers.CreateContainerRequest(parent=ref))
        await it.call("ContainerService/ListContainers", containers.ListContainersRequest(below=ref))
        assert [call.target for call, _ in it.answers.seen] == [None, None]


async def test_a_refused_connection_gets_nothing_at_all_but_the_reason(tmp_path: Path) -> None:
    async with wire(tmp_path) as it:
        it.caller[0] = UNKNOWN
        for path in ("SystemService/WhoAmI", "/grpc.health.v1.Health/Check", "ContainerService/ListContainers"):
            with pytest.raises(aio.AioRpcError, match="did not come by a public socket") as refusal:
                await it.call(path, b"")
            it.info(refusal.value, grpc.StatusCode.PERMISSION_DENIED)
        assert it.interceptor.counts["Health/Check", "PERMISSION_DENIED"] == 1


START = processes.ExecRequest(start=processes.ExecRequest.Start(container=ContainerRef(id=WEB), argv=[b"true"]))
ATTACH = processes.ExecRequest(attach=processes.ExecRequest.Attach(container=ContainerRef(id=WEB)))
STDIN = processes.ExecRequest(stdin=processes.ExecRequest.Stdin(data=b"x"))


@pytest.mark.parametrize("opening", [START, ATTACH])
async def test_a_stream_is_handed_on_whole_with_the_target_of_its_first_message(
    tmp_path: Path, opening: processes.ExecRequest
) -> None:
    async with wire(tmp_path) as it:
        await it.exec(opening, STDIN, STDIN)
        ((call, messages),) = it.answers.seen
        assert (call.container.id, messages) == (WEB, [opening, STDIN, STDIN])


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ([STDIN, START], "BAD_OPENING"),
        ([], "BAD_OPENING"),
        ([processes.ExecRequest()], "BAD_OPENING"),
        ([b"\x9a\x06\x03abc"], "BAD_OPENING"),  # a field that this version does not know
        ([START, START], "SECOND_OPENING"),
        ([START, STDIN, ATTACH], "SECOND_OPENING"),
        ([b"\xff"], "BAD_MESSAGE"),
        ([START, b"\xff"], "BAD_MESSAGE"),
        ([processes.ExecRequest(start=processes.ExecRequest.Start())], "BAD_REFERENCE"),
    ],
)
async def test_a_stream_names_its_target_first_and_once(
    tmp_path: Path, sent: list[processes.ExecRequest | bytes], reason: str
) -> None:
    async with wire(tmp_path) as it:
        with pytest.raises(aio.AioRpcError) as refusal:
            await it.exec(*sent)
        assert it.info(refusal.value, grpc.StatusCode.INVALID_ARGUMENT).reason == reason


async def test_two_openings_in_one_message_are_the_last_one_only(tmp_path: Path) -> None:
    """A oneof that is sent twice: what is authorized is what is handed on."""
    other = processes.ExecRequest(attach=processes.ExecRequest.Attach(container=ContainerRef(id=WORKER)))
    async with wire(tmp_path) as it:
        await it.exec(START.SerializeToString() + other.SerializeToString())
        ((call, messages),) = it.answers.seen
        assert (call.container.id, messages) == (WORKER, [other])


async def test_the_answer_to_a_repeated_request_does_not_depend_on_what_its_names_mean_now(tmp_path: Path) -> None:
    request = containers.DestroyContainerRequest(container=ContainerRef(path="gone"), request_id="A" * 36)
    async with wire(tmp_path) as it:
        method = next(
            one.method for one in served(SERVICES[0], it.answers) if one.method.name.endswith("DestroyContainer")
        )
        key = request_key(HOST, method, request)
        assert key is not None
        await it.database.write(lambda c: requests.remember(c, key, b"answer"))
        stream = it.channel.unary_stream(method.path)(request.SerializeToString())
        assert len([one async for one in stream]) == 1
        ((call, _),) = it.answers.seen
        assert (call.answered, call.targets, call.key(request)) == (True, {"container": None}, key)


async def test_an_error_of_the_domain_keeps_its_words(tmp_path: Path) -> None:
    async def fail() -> None:
        raise FailedPrecondition(
            "It is stopped.", resolution="Start it.", reason="WRONG_STATE", metadata={"state": "stopped"}
        )

    async with wire(tmp_path) as it:
        it.answers.do = fail
        with pytest.raises(aio.AioRpcError, match=r"It is stopped\. Start it\.") as refusal:
            await it.call("SystemService/WhoAmI", b"")
        info = info_of(refusal.value)
        assert refusal.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert (info.reason, info.metadata["state"], info.metadata["nightos_code"]) == (
            "WRONG_STATE",
            "stopped",
            "0x4000",
        )


async def test_an_unexpected_error_tells_the_client_a_number_and_the_log_the_cause(tmp_path: Path) -> None:
    async def fail() -> None:
        raise ValueError("the password is swordfish")

    async with wire(tmp_path) as it:
        it.answers.do = fail
        with capture_logs() as lines, pytest.raises(aio.AioRpcError) as refusal:
            await it.call("SystemService/WhoAmI", b"")
        assert refusal.value.code() == grpc.StatusCode.INTERNAL
        assert "swordfish" not in str(refusal.value.details())
        number = info_of(refusal.value).metadata["error_id"]
        (unexpected,) = [line for line in lines if line["event"] == "unexpected error"]
        assert isinstance(unexpected["exc_info"], ValueError)
        assert number in str(refusal.value.details())


async def test_a_method_that_does_not_exist_is_unimplemented(tmp_path: Path) -> None:
    async with wire(tmp_path) as it:
        for path in ("/nightos.sysproc.v1.ContainerService/Explode", "/a.B/C", "/", "//"):
            await it.refused(path, b"\xff", grpc.StatusCode.UNIMPLEMENTED)


async def test_bytes_that_are_no_message_are_invalid(tmp_path: Path) -> None:
    async with wire(tmp_path) as it:
        for raw in (b"\xff", b"\x0a\x05ab", b"\x12\x04\x1a\x02\xff\xfe"):
            info = await it.refused("ContainerService/CreateContainer", raw, grpc.StatusCode.INVALID_ARGUMENT)
            assert info.reason == "BAD_MESSAGE"


async def test_each_call_is_one_line_of_log_with_its_context(tmp_path: Path) -> None:
    request = containers.GetContainerRequest(container=ContainerRef(path="web/worker"))
    async with wire(tmp_path) as it:
        with capture_logs() as lines:
            await it.call("ContainerService/GetContainer", request)
        (line,) = lines
        assert (line["event"], line["code"], line["log_level"]) == ("call", "OK", "info")
        assert line["ms"] > 0
        assert it.interceptor.counts["ContainerService/GetContainer", "OK"] == 1


async def test_a_call_whose_client_has_gone_is_cancelled(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with wire(tmp_path) as it:
        it.answers.do = wait
        with capture_logs() as lines:
            call = it.channel.unary_unary("/nightos.sysproc.v1.SystemService/WhoAmI")(b"")
            await reached(it)
            call.cancel()
            async with asyncio.timeout(10):
                await ended.wait()
            await it.interceptor.idle(10)
        assert [line["code"] for line in lines] == ["CANCELLED"]


async def test_a_call_does_not_outlive_its_deadline(tmp_path: Path) -> None:
    async with wire(tmp_path) as it:
        it.answers.do = lambda: asyncio.Event().wait()
        with capture_logs() as lines:
            for timeout_s in (0.2, 2, 20):  # on a busy machine it may be over before the call has arrived
                with pytest.raises(aio.AioRpcError) as refusal:
                    await it.call("SystemService/WhoAmI", b"", timeout=timeout_s)
                assert refusal.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
                if it.answers.seen:
                    break
            assert await it.interceptor.idle(10)
        assert [line["code"] for line in lines] == ["DEADLINE_EXCEEDED"]


async def reached(it: Wire) -> None:
    async with asyncio.timeout(10):
        while not it.answers.seen:  # noqa: ASYNC110 - the other side is a server, not an event
            await asyncio.sleep(0.005)


async def test_at_the_end_watches_are_cut_and_other_calls_have_their_time(tmp_path: Path) -> None:
    release = asyncio.Event()
    async with wire(tmp_path) as it:
        it.answers.do = release.wait
        unary = asyncio.create_task(it.call("SystemService/WhoAmI", b""))
        watch = it.channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
        assert await watch.read() != aio.EOF
        await reached(it)
        it.interceptor.stop()
        with pytest.raises(aio.AioRpcError) as cut:
            await watch.read()
        assert (cut.value.code(), info_of(cut.value).reason) == (grpc.StatusCode.UNAVAILABLE, "STOPPING")
        assert not await it.interceptor.idle(0.05)
        with pytest.raises(aio.AioRpcError) as late:
            await it.call("SystemService/WhoAmI", b"")
        assert late.value.code() == grpc.StatusCode.UNAVAILABLE
        release.set()
        await unary
        assert await it.interceptor.idle(10)


async def test_a_call_that_is_cut_while_it_writes_has_written() -> None:
    written_at_last: list[bytes] = []
    over = asyncio.Event()

    async def write(data: bytes) -> None:
        await over.wait()
        written_at_last.append(data)

    context = cast("Any", SimpleNamespace(write=write))
    writing = asyncio.create_task(written(context, b"message"))
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.sleep(0)
    assert not writing.done()
    over.set()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert written_at_last == [b"message"]


async def test_calls_that_exceed_their_grace_end_with_unavailable(tmp_path: Path) -> None:
    async with wire(tmp_path) as it:
        it.answers.do = lambda: asyncio.Event().wait()
        unary = asyncio.create_task(it.call("SystemService/WhoAmI", b""))
        await reached(it)
        it.interceptor.stop(all_calls=True)
        with pytest.raises(aio.AioRpcError) as cut:
            await unary
        assert cut.value.code() == grpc.StatusCode.UNAVAILABLE
        assert await it.interceptor.idle(10)


async def test_health_tells_each_service_and_each_change(tmp_path: Path) -> None:
    async with wire(tmp_path) as it:
        for name in ("", "nightos.sysproc.v1.ProcessService"):
            raw = await it.call("/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest(service=name))
            assert health_pb2.HealthCheckResponse.FromString(raw).status == health_pb2.HealthCheckResponse.SERVING
        await it.refused(
            "/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest(service="none"), grpc.StatusCode.NOT_FOUND
        )
        watch = it.channel.unary_stream(
            "/grpc.health.v1.Health/Watch", response_deserializer=health_pb2.HealthCheckResponse.FromString
        )
        first, second = watch(b""), watch(b"")
        assert [(await one.read()).status for one in (first, second)] == [1, 1]
        second.cancel()
        await it.health.set(False)
        assert (await first.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        first.cancel()
