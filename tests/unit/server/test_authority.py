"""What a caller inside a container reaches: itself and what is below, and nothing else, whether it exists or not."""

import asyncio
from pathlib import Path

import grpc
import pytest
import structlog
from grpc import aio
from structlog.testing import capture_logs

from nightos.sysproc.v1 import container_service_pb2 as containers
from nightos.sysproc.v1 import process_service_pb2 as processes
from nightos.sysproc.v1.ref_pb2 import ContainerRef
from sysproc.errors import ResourceExhausted
from sysproc.server.peer import Caller
from tests.unit.server.wire import DEEP, HOST, IN_WORKER, INSIDE_USER, MOST_CALLS, UNCLE, WEB, WORKER, wire


async def test_inside_other_users_than_root_get_whoami_and_health_and_are_refused_everything_else_with_one_text(
    tmp_path: Path,
) -> None:
    async with wire(tmp_path) as it:
        it.caller[0] = INSIDE_USER
        await it.call("SystemService/WhoAmI", b"")
        await it.call("/grpc.health.v1.Health/Check", b"")
        it.answers.seen.clear()
        texts = set()
        for path, request in (
            ("ContainerService/GetContainer", containers.GetContainerRequest(container=ContainerRef(id=WEB))),
            ("ContainerService/GetContainer", containers.GetContainerRequest(container=ContainerRef(id=99))),
            ("ContainerService/GetContainer", b"\xff\xff not a message"),
            ("ContainerService/CreateContainer", containers.CreateContainerRequest()),
            ("SystemService/GetSystemInfo", b""),
            ("ProcessService/Exec", b""),
        ):
            with pytest.raises(aio.AioRpcError) as refusal:
                await it.call(path, request)
            it.info(refusal.value, grpc.StatusCode.PERMISSION_DENIED)
            texts.add(refusal.value.details())
        assert len(texts) == 1


@pytest.mark.parametrize(
    ("ref", "found"),
    [
        (None, WORKER),
        (ContainerRef(), WORKER),
        (ContainerRef(path="."), WORKER),
        (ContainerRef(id=WORKER), WORKER),
        (ContainerRef(id=DEEP), DEEP),
        (ContainerRef(path="000000000000000d"), DEEP),
        (ContainerRef(path="0000000000c0ffee/deep"), DEEP),
    ],
)
async def test_inside_a_container_names_begin_at_itself(tmp_path: Path, ref: ContainerRef | None, found: int) -> None:
    async with wire(tmp_path) as it:
        it.caller[0] = IN_WORKER
        await it.call("ContainerService/GetContainer", containers.GetContainerRequest(container=ref))
        await it.call("ContainerService/CreateContainer", containers.CreateContainerRequest(parent=ref))
        await it.call("ContainerService/ListContainers", containers.ListContainersRequest(below=ref))
        assert [call.container.id for call, _ in it.answers.seen] == [found] * 3
        assert it.named == [found] * 3, "what was named counts as used"


UNREACHABLE = [ContainerRef(id=WEB), ContainerRef(id=UNCLE), ContainerRef(id=99), ContainerRef(id=0)]
UNREACHABLE += [ContainerRef(path=f"{one:016x}") for one in (WEB, UNCLE, 99, 0)]


async def test_inside_what_is_not_below_is_refused_with_one_text_whether_it_exists_or_not(tmp_path: Path) -> None:
    texts = set()
    async with wire(tmp_path) as it:
        it.caller[0] = IN_WORKER
        for ref in UNREACHABLE:
            for path, request in (
                ("ContainerService/GetContainer", containers.GetContainerRequest(container=ref)),
                ("ContainerService/CreateContainer", containers.CreateContainerRequest(parent=ref)),
                ("ContainerService/ListContainers", containers.ListContainersRequest(below=ref)),
                ("ContainerService/StopContainer", containers.StopContainerRequest(container=ref)),
                ("ProcessService/Wait", processes.WaitRequest(container=ref)),
            ):
                with pytest.raises(aio.AioRpcError) as refusal:
                    await it.call(path, request)
                assert it.info(refusal.value, grpc.StatusCode.PERMISSION_DENIED).reason == "OUT_OF_REACH"
                texts.add((refusal.value.details(), str(refusal.value.trailing_metadata())))
        assert it.named == [], "what is out of reach is not used"
    assert len(texts) == 1


@pytest.mark.parametrize("path", ["web", "uncle", "web/worker", "deep", "worker"])
async def test_inside_names_lead_downward_only(tmp_path: Path, path: str) -> None:
    async with wire(tmp_path) as it:
        it.caller[0] = IN_WORKER
        request = containers.GetContainerRequest(container=ContainerRef(path=path))
        await it.refused("ContainerService/GetContainer", request, grpc.StatusCode.NOT_FOUND)


@pytest.mark.parametrize("verb", ["Start", "Stop", "Freeze", "Thaw", "Destroy"])
@pytest.mark.parametrize("ref", [None, ContainerRef(path="."), ContainerRef(id=WORKER)])
async def test_a_container_does_not_start_stop_or_destroy_itself(
    tmp_path: Path, verb: str, ref: ContainerRef | None
) -> None:
    async with wire(tmp_path) as it:
        it.caller[0] = IN_WORKER
        request = getattr(containers, f"{verb}ContainerRequest")(container=ref)
        await it.refused(f"ContainerService/{verb}Container", request, grpc.StatusCode.PERMISSION_DENIED)


async def test_a_stream_from_inside_reaches_no_further(tmp_path: Path) -> None:
    def attach(to: int) -> processes.ExecRequest:
        return processes.ExecRequest(attach=processes.ExecRequest.Attach(container=ContainerRef(id=to)))

    async with wire(tmp_path) as it:
        it.caller[0] = IN_WORKER
        with pytest.raises(aio.AioRpcError) as refusal:
            await it.exec(attach(UNCLE))
        it.info(refusal.value, grpc.StatusCode.PERMISSION_DENIED)
        await it.exec(attach(DEEP))
        assert [call.container.id for call, _ in it.answers.seen] == [DEEP]


async def test_a_refusal_is_written_to_the_audit_log_with_who_wanted_what(tmp_path: Path) -> None:
    async with wire(tmp_path) as it:
        it.caller[0] = IN_WORKER
        request = containers.StopContainerRequest(container=ContainerRef(path=f"{UNCLE:016x}"))
        with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
            await it.refused("ContainerService/StopContainer", request, grpc.StatusCode.PERMISSION_DENIED)
        (audit,) = [line for line in lines if line["event"] == "audit"]
        assert audit.pop("request")
        assert audit == {
            "event": "audit",
            "log_level": "warning",
            "decision": "refused",
            "reason": "OUT_OF_REACH",
            "caller": f"{WORKER:016x}/0",
            "caller_container": f"{WORKER:016x}",
            "caller_pid": 7,
            "caller_uid": 0,
            "method": "ContainerService/StopContainer",
            "target": f"{UNCLE:016x}",
        }
        assert it.interceptor.counts["ContainerService/StopContainer", "PERMISSION_DENIED"] == 1


async def test_a_container_has_so_many_calls_under_way_and_the_host_more(tmp_path: Path) -> None:
    release = asyncio.Event()
    async with wire(tmp_path) as it:
        it.answers.do = release.wait
        for caller, refused in ((IN_WORKER, True), (HOST, False)):
            it.caller[0] = caller
            before = len(it.answers.seen)
            calls = [asyncio.create_task(it.call("SystemService/WhoAmI", b"")) for _ in range(MOST_CALLS)]
            async with asyncio.timeout(10):
                while len(it.answers.seen) < before + MOST_CALLS:  # noqa: ASYNC110 - the other side is a server
                    await asyncio.sleep(0.005)
            more = asyncio.create_task(it.call("SystemService/WhoAmI", b""))
            if refused:
                with pytest.raises(aio.AioRpcError, match="too many calls") as refusal:
                    await more
                assert refusal.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            release.set()
            await asyncio.gather(*calls, *([] if refused else [more]))
            release.clear()
        it.caller[0] = IN_WORKER
        release.set()
        await it.call("SystemService/WhoAmI", b"")


@pytest.mark.parametrize(("caller", "told"), [(HOST, True), (IN_WORKER, False)], ids=["host", "inside"])
async def test_inside_nothing_of_the_host_is_told_by_its_failures(tmp_path: Path, caller: Caller, told: bool) -> None:
    async def fail() -> None:
        raise ResourceExhausted("No.", details="/var/lib/x", resolution="Wait.", metadata={"path": "/var/lib/x"})

    async with wire(tmp_path) as it:
        it.caller[0], it.answers.do = caller, fail
        with pytest.raises(aio.AioRpcError) as refusal:
            await it.call("SystemService/WhoAmI", b"")
        assert ("/var/lib/x" in f"{refusal.value.details()} {refusal.value.trailing_metadata()}") == told
        assert refusal.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
