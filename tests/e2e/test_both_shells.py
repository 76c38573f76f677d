"""What a program sees of a real service through either shell of the client, sync and async: the same."""

import asyncio
import io
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sysproc_client import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    LimitExceeded,
    NotFound,
    TimedOut,
    Unavailable,
)
from sysproc_client._core.exec_machine import STDIN_WINDOW
from sysproc_client.aio import AsyncClient
from tests.archives import Archive
from tests.e2e.daemon import RunningDaemon
from tests.e2e.shells import SHELLS, client_of, grpc_begun
from tests.waiting import wait_until

WINDOWS = 6


@pytest.fixture(scope="module", autouse=True)
def grpc_is_begun() -> Iterator[None]:
    """No test sees it begin, or end."""
    with grpc_begun():
        yield


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def c(shell: str, daemon: RunningDaemon) -> AsyncIterator[Any]:
    async with client_of(shell, daemon.endpoint) as connected:
        yield connected


@pytest.fixture
async def later(daemon: RunningDaemon) -> AsyncIterator[AsyncClient]:
    """For what there is in asyncio only."""
    async with AsyncClient(daemon.endpoint) as connected:
        yield connected


@pytest.fixture
def dies_at(daemon: RunningDaemon) -> Iterator[Callable[[str], None]]:
    """The daemon dies once at a failpoint, and is started again without it."""
    threads = []

    def start_again() -> None:
        daemon.process.wait()
        daemon.start()

    def arm(failpoint: str) -> None:
        daemon.restart(environment={"SYSPROC_FAILPOINTS": f"{failpoint}=kill"})
        threads.append(threading.Thread(target=start_again))
        threads[-1].start()

    yield arm
    for thread in threads:
        thread.join()


# -- what is made is undone


async def test_what_a_block_makes_is_gone_after_it(c: Any) -> None:
    async with c.create(name="web") as box, c.create(parent=box, name="worker"):
        assert [one.name for one in await box.children()] == ["worker"]
    assert await c.list() == []


async def test_a_block_may_destroy_by_itself_what_it_has_made(c: Any) -> None:
    async with c.create() as box:
        assert await box.destroy() == [box.id]
    assert await c.list() == []


async def test_what_is_only_checked_is_not_made(c: Any) -> None:
    async with c.create(name="web", memory="64M", validate_only=True) as would:
        assert (would.id, would.name, would.message.limits.memory_bytes) == ("", "web", 64 << 20)
    assert await c.list() == []
    async with c.create(name="web"):
        with pytest.raises(AlreadyExists):
            await c.create(name="web", validate_only=True)


async def test_a_tree_has_all_containers_where_they_belong(c: Any) -> None:
    async with c.create(name="a") as top:
        first, second = await c.create(parent=top, name="b"), await c.create(parent=top, name="d")
        await c.create(parent=first, name="c")
        tree = await top.tree()
        assert [one.name for one in tree] == ["a", "b", "c", "d"]
        assert [branch.container.id for branch in tree.children] == [first.id, second.id]


async def test_the_service_says_what_it_can(c: Any) -> None:
    assert (await c.system_info()).ListFields()
    assert (await c.whoami()).uid == 0


# -- streaming


async def test_a_process_is_talked_to_while_it_runs(c: Any) -> None:
    async with c.create() as box, box.exec(["cat"]) as process:
        lines = aiter(process.stdout)
        for word in (b"one\n", b"two\n"):
            await process.stdin.write(word)
            assert await anext(lines) == word
        await process.stdin.close()
        assert (await process.wait()).exit_code == 0


async def test_each_stream_of_output_can_be_iterated_by_itself(c: Any) -> None:
    async with c.create() as box, box.exec(["sh", "-c", "echo out; echo err >&2; echo more"]) as process:
        assert b"".join([data async for data in process.stdout]) == b"out\nmore\n"
        assert b"".join([data async for data in process.stderr]) == b"err\n"


async def test_input_may_be_written_before_output_is_read(c: Any) -> None:
    async with c.create() as box, box.exec(["cat"]) as process:
        for _ in range(WINDOWS):
            await process.stdin.write(bytes(STDIN_WINDOW))
        await process.stdin.close()
        assert sum([len(chunk.data) async for chunk in process]) == WINDOWS * STDIN_WINDOW


async def test_a_process_that_does_not_read_holds_up_who_writes(c: Any) -> None:
    async with c.create() as box, box.exec(["sleep", "1000"]) as process:
        writing = asyncio.ensure_future(written(process, WINDOWS))
        await asyncio.wait({writing}, timeout=0.5)
        assert not writing.done()
        await process.signal(signal.SIGKILL)
        with pytest.raises(BrokenPipeError):
            await writing


async def written(process: Any, windows: int) -> None:
    """Without a newline."""
    for _ in range(windows):
        await process.stdin.write(bytes(STDIN_WINDOW))


async def test_a_terminal_has_the_size_that_it_is_told(c: Any) -> None:
    script = "trap 'stty size; exit' WINCH; stty size; while :; do sleep 0.1; done"
    async with c.create() as box, box.exec(["sh", "-c", script], tty=(24, 80)) as process:
        sizes = aiter(process.stdout)
        assert await anext(sizes) == b"24 80\r\n"
        await process.resize(50, 132)
        assert await anext(sizes) == b"50 132\r\n"


async def test_a_signal_reaches_the_process(c: Any) -> None:
    async with c.create() as box, box.exec(["sh", "-c", "echo up; exec sleep 1000"]) as process:
        assert await anext(aiter(process.stdout)) == b"up\n"
        await process.signal(signal.SIGTERM)
        assert (await process.wait()).signal == signal.SIGTERM


async def test_a_process_is_over_when_its_block_is_left(c: Any) -> None:
    async with c.create() as box:
        async with box.exec(["sh", "-c", "echo up; exec sleep 1000"]) as process:
            assert await anext(aiter(process.stdout)) == b"up\n"
        assert process.ended.signal == signal.SIGKILL
        assert await names(box) == []


async def names(box: Any) -> list[bytes]:
    """Of the processes besides init."""
    return [one.argv[0] for one in await box.ps() if one.argv[0] not in (b"init", b"/init")]


async def test_somebody_else_comes_back_to_a_process(c: Any, later: AsyncClient) -> None:
    async with c.create() as box:
        async for _ in (await later.get(box.id)).exec(
            ["sh", "-c", "echo up; read go; echo $go; exit 3"], exec_id="job"
        ):
            break
        process = box.attach("job")
        output = aiter(process.stdout)
        assert await anext(output) == b"up\n"
        await process.stdin.write(b"on\n")
        assert b"".join([data async for data in output]) == b"on\n"
        assert (await process.wait()).exit_code == 3


async def test_nobody_comes_back_to_what_was_not_started(c: Any) -> None:
    async with c.create() as box:
        with pytest.raises(NotFound, match="job"):
            await box.attach("job").wait()
        with pytest.raises(InvalidArgument):
            box.attach("")


# -- what goes wrong


async def test_a_process_goes_on_where_it_was_after_a_restart_of_the_daemon(c: Any, daemon: RunningDaemon) -> None:
    async with c.create() as box, box.exec(["sh", "-c", "echo up; read go; seq 3"]) as process:
        output = aiter(process.stdout)
        assert await anext(output) == b"up\n"
        await asyncio.to_thread(daemon.restart)
        await process.stdin.write(b"go\n")
        assert b"".join([data async for data in output]) == b"1\n2\n3\n"


@pytest.mark.parametrize("failpoint", ["processes.start.after_claim", "processes.start.after_spawn"])
async def test_a_process_runs_once_though_the_daemon_died_while_it_was_started(
    c: Any, dies_at: Callable[[str], None], failpoint: str
) -> None:
    async with c.create() as box:
        await asyncio.to_thread(dies_at, failpoint)
        assert (await box.run(["sh", "-c", "echo x >> /times; cat /times"])).stdout == b"x\n"


@pytest.mark.parametrize("failpoint", ["create.after_intention", "start.after_commit"])
async def test_a_container_is_made_once_though_the_daemon_died_meanwhile(
    c: Any, dies_at: Callable[[str], None], failpoint: str
) -> None:
    await asyncio.to_thread(dies_at, f"containers.{failpoint}")
    async with c.create(name="only") as box:
        assert [one.id for one in await c.list()] == [box.id]


async def test_a_daemon_that_stays_away_is_given_up(shell: str, daemon: RunningDaemon) -> None:
    async with client_of(shell, daemon.endpoint, patience=1) as c:
        process = (await c.create()).exec(["sh", "-c", "echo up; sleep 1000"])
        output = aiter(process)
        assert (await anext(output)).data == b"up\n"
        await asyncio.to_thread(daemon.kill9)
        with pytest.raises(Unavailable) as caught:
            await anext(output)
    assert caught.value.reason == "ANSWER_LOST"
    daemon.start()


async def test_a_timeout_ends_the_command(c: Any) -> None:
    async with c.create() as box:
        with pytest.raises(TimedOut) as caught:
            await box.run(["sleep", "1000"], timeout=0.5)
        assert caught.value.reason == "COMMAND_TIMEOUT"
        assert await names(box) == []


async def test_a_call_to_a_daemon_that_hangs_ends(shell: str, daemon: RunningDaemon) -> None:
    async with client_of(shell, daemon.endpoint, timeout=0.5) as c:
        await c.whoami()
        daemon.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(TimedOut, match=r"0\.5 s"):
                await c.list()
        finally:
            daemon.process.send_signal(signal.SIGCONT)
    await asyncio.to_thread(wait_until, daemon.endpoint_answers, "it answers again")


async def test_an_error_has_its_reason_and_what_to_do(c: Any) -> None:
    with pytest.raises(NotFound) as caught:
        await c.create(image="nothing")
    assert caught.value.reason and caught.value.resolution


async def test_a_request_that_grpc_does_not_take_says_what_to_do(c: Any) -> None:
    async with c.create() as box:
        with pytest.raises(LimitExceeded, match="4194304") as caught:
            await box.run(["true", "x" * (5 << 20)])
    assert caught.value.reason == "REQUEST_TOO_LARGE" and "argv" in caught.value.resolution


# -- images and volumes


async def test_an_image_is_imported_of_a_folder_and_of_an_open_file(c: Any, tmp_path: Path, archive: Archive) -> None:
    archive.add("file", b"x")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "file").write_text("x")
    try:
        for name, source in (("folder", tmp_path / "root"), ("open", io.BytesIO(archive.bytes()))):
            await c.images.import_(name, source)
        assert {"folder", "open"} <= {one.name for one in await c.images.list()}
        assert (await c.images.get("open")).image.entries == 1
    finally:
        for name in ("folder", "open"):
            await c.images.delete(name)


async def test_a_source_that_fails_is_the_error_of_the_import(c: Any) -> None:
    class Broken(io.RawIOBase):
        def read(self, size: int = -1, /) -> bytes:
            raise OSError(5, "the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        await c.images.import_("broken", Broken())
    assert "broken" not in [one.name for one in await c.images.list()]


async def test_a_volume_is_mounted_for_a_block(c: Any) -> None:
    async with c.create() as box, c.volumes.create("data", size="32M", owner=box) as data:
        async with data.mount(box, "/srv") as mount:
            assert (mount.volume, mount.path) == ("data", "/srv")
            assert (await box.run(["sh", "-c", "echo kept > /srv/file"])).exit_code == 0
        assert (await box.run(["ls", "/srv"])).stdout == b""
        async for found in data.check():
            assert found.is_whole
    assert await c.volumes.list() == []


async def test_a_volume_in_use_says_why_it_stays(c: Any) -> None:
    async with c.create() as box, c.volumes.create("data", size="32M", owner=box) as data, data.mount(box, "/srv"):
        with pytest.raises(FailedPrecondition) as caught:
            await data.delete()
        assert caught.value.reason


async def test_a_volume_goes_to_a_file_and_comes_back(c: Any, tmp_path: Path) -> None:
    async with c.create() as box, c.volumes.create("data", size="32M", owner=box) as data:
        async with data.mount(box, "/srv"):
            await box.run(["sh", "-c", "echo kept > /srv/file"])
        said: list[int] = []
        for path in (tmp_path / "data.img", tmp_path / "data.img.zst"):
            await data.export_to(path, progress=lambda done, _: said.append(done))
            again = await c.volumes.import_from(path.suffix[1:], path, owner=box, trusted=True)
            async with again.mount(box, "/mnt"):
                assert (await box.run(["cat", "/mnt/file"])).stdout == b"kept\n"
        assert said


async def test_a_volume_is_made_of_a_folder(c: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("packed")
    async with c.create() as box:
        tools = await c.volumes.create_from("tools", tmp_path, owner=box)
        async with tools.mount(box, "/srv"):
            assert (await box.run(["cat", "/srv/file"])).stdout == b"packed"


# -- cancellation, which threads do not have


async def test_a_cancelled_command_is_over(later: AsyncClient) -> None:
    async with later.create() as box:
        running = asyncio.ensure_future(box.run(["sleep", "1000"]))
        await until(lambda: names(box), [b"sleep"])
        await cancelled(running)
        assert await names(box) == []


async def test_a_cancelled_reader_loses_nothing(later: AsyncClient) -> None:
    """Who waits for output only for a while goes on where it was."""
    async with later.create() as box, box.exec(["sh", "-c", "echo one; read go; echo two"]) as process:
        output: list[bytes] = []

        async def read() -> None:
            async for data in process.stdout:
                output.append(data)  # noqa: PERF401 - what came before the cancellation counts

        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(read(), 0.3)
        await process.stdin.write(b"go\n")
        await read()
        assert b"".join(output) == b"one\ntwo\n"


@pytest.mark.parametrize("wait_s", [0, 0.01, 0.05, 0.2])
async def test_a_cancelled_create_leaves_nothing(later: AsyncClient, wait_s: float) -> None:
    making = asyncio.ensure_future(later.create(name="half").__aenter__())
    await asyncio.wait({making}, timeout=wait_s)
    if making.cancel():
        await cancelled(making)
        assert await later.list() == []
        with pytest.raises(NotFound):
            await later.get("half")


async def test_a_cancelled_block_undoes_what_it_has_made(later: AsyncClient) -> None:
    entered = asyncio.Event()

    async def work() -> None:
        async with later.create() as box, box.exec(["sleep", "1000"]) as process:
            entered.set()
            await process.wait()

    working = asyncio.ensure_future(work())
    await entered.wait()
    await cancelled(working)
    assert await later.list() == []


async def test_a_cancelled_import_leaves_no_image_and_no_task(later: AsyncClient, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:  # no hole: those are not sent
        for _ in range(512):
            file.write(bytes(2**20))
    importing = asyncio.ensure_future(later.images.import_("large", tmp_path))
    await asyncio.wait({importing}, timeout=0.3)
    await cancelled(importing)
    assert "large" not in [one.name for one in await later.images.list()]


@pytest.fixture(autouse=True)
async def no_task_is_left() -> AsyncIterator[None]:
    """Whatever a test has cancelled or left; gRPC's own poller apart, which has no task."""
    before = asyncio.all_tasks()
    yield
    await until(lambda: others(before), set())


async def others(before: "set[asyncio.Task[Any]]") -> "set[asyncio.Task[Any]]":
    return {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}


async def cancelled(task: "asyncio.Future[Any]") -> None:
    """Cancel it, and see it end so."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def until(ask: Callable[[], Any], wanted: object) -> None:
    """Ask until that is the answer; a test that waits in vain is ended by its timeout."""
    while True:
        if await ask() == wanted:
            return
        await asyncio.sleep(0.02)
