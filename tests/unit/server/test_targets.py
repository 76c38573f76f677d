"""What a reference names is remembered until the next change of the hierarchy, and for nobody but who asked."""

from pathlib import Path

import grpc
import pytest

from nightos.sysproc.v1 import container_service_pb2 as containers
from nightos.sysproc.v1.ref_pb2 import ContainerRef
from sysproc.server.peer import Caller
from sysproc.states import State
from sysproc.storage import hierarchy
from tests.unit.server.wire import DEEP, IN_WORKER, UNCLE, WEB, WORKER, Wire, wire

GET = "ContainerService/GetContainer"


def named(path: str) -> containers.GetContainerRequest:
    return containers.GetContainerRequest(container=ContainerRef(path=path))


async def found(it: Wire, path: str) -> int:
    await it.call(GET, named(path))
    row = it.answers.seen.pop()[0].target
    assert row is not None
    return row.id


async def test_a_name_that_was_given_to_another_names_the_other(tmp_path: Path) -> None:
    async with wire(tmp_path) as it:
        assert [await found(it, "web/uncle") for _ in range(3)] == [UNCLE] * 3
        await it.database.write(lambda c: hierarchy.delete_container(c, UNCLE, only_in=list(State)))
        await it.refused(GET, named("web/uncle"), grpc.StatusCode.NOT_FOUND)
        await it.refused(GET, named("web/uncle"), grpc.StatusCode.NOT_FOUND)
        await it.database.write(lambda c: hierarchy.update_container(c, WORKER, name="uncle"))
        assert await found(it, "web/uncle") == WORKER


async def test_what_one_caller_has_found_says_nothing_to_another(tmp_path: Path) -> None:
    async with wire(tmp_path) as it:
        assert await found(it, f"{UNCLE:016x}") == UNCLE
        it.caller[0] = IN_WORKER
        await it.refused(GET, named(f"{UNCLE:016x}"), grpc.StatusCode.PERMISSION_DENIED)
        assert await found(it, ".") == WORKER
        it.caller[0] = Caller(WEB, 0, 8, authority=True)
        assert await found(it, ".") == WEB


async def test_a_second_question_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with wire(tmp_path) as it:
        first = await found(it, f"{DEEP:016x}")
        monkeypatch.setattr(it.database, "_snapshot", None)
        assert await found(it, f"{DEEP:016x}") == first
