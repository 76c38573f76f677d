"""The launcher by itself, asked by the daemon's end of it: who may ask, and that nothing it forked outlives its use.

What it forks and how is in `sysproc.isolation.launcher`; containers and images by it are in `tests.e2e`.
"""

import asyncio
import errno
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sysproc.errors import DeadlineExceeded, Internal
from sysproc.isolation import launcher_client, launcher_protocol
from sysproc.isolation.launcher_client import ChildFailed, Launcher
from sysproc.linux.files import is_open_elsewhere
from sysproc.linux.mounts import MNT_DETACH, mount, umount2
from tests.waiting import is_zombie, wait_until

End = Callable[[Launcher, "asyncio.Task[object]"], Awaitable[None]]
NOBODY = 65534
PLACE = {"offset": 1 << 20, "size": 8 << 20}


@pytest.fixture
def runtime_dir() -> Iterator[Path]:
    """A directory that others may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="sysproc-test-") as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.fixture
async def launcher(runtime_dir: Path) -> AsyncIterator[Launcher]:
    connected = Launcher(runtime_dir, ())
    await connected.connect()
    yield connected
    await connected.connect()
    await connected.quit()
    await connected.close()


@pytest.fixture
def stuck_tool(runtime_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Every mke2fs of launchers that start from now on says its pid and waits for ever; gives that pid."""
    said, tools = runtime_dir / "mke2fs.pid", runtime_dir / "bin"
    tools.mkdir()
    (tools / "mke2fs").write_text(f"#!/bin/sh\necho $$ >{said}.new; mv {said}.new {said}; exec sleep 1000\n")
    (tools / "mke2fs").chmod(0o755)
    monkeypatch.setattr(launcher_client, "LAUNCHER_PATH", f"{tools}:{launcher_client.LAUNCHER_PATH}")

    def pid() -> int:
        wait_until(said.exists, "mke2fs has started")
        return int(said.read_text())

    return pid


@contextmanager
def sparse_file(directory: Path) -> Iterator[int]:
    with open(directory / "image", "w+b") as file:
        file.truncate(16 << 20)
        yield file.fileno()


@pytest.fixture
def image(tmp_path: Path) -> Iterator[int]:
    with sparse_file(tmp_path) as fd:
        yield fd


@pytest.fixture
def answered(runtime_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Jobs of launchers that start from now on make this file when they have answered, and end when it is removed."""
    marker = runtime_dir / "answered"
    monkeypatch.setenv("SYSPROC_FAILPOINTS", f"jobs.after_answer=block({marker})")
    yield marker
    marker.unlink(missing_ok=True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk with less room than a filesystem takes."""
    mount("tmpfs", tmp_path, fstype="tmpfs", data="size=16k")
    yield tmp_path
    umount2(tmp_path, MNT_DETACH)


@pytest.fixture
def no_image() -> Iterator[int]:
    """What no loop device takes."""
    with open("/dev/null", "rb") as null:
        yield null.fileno()


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    return Path(f"/proc/{pid}").exists() and not is_zombie(pid)


def gone(pid: int) -> None:
    wait_until(lambda: not alive(pid), f"process {pid} is gone")


def as_nobody(work: Callable[[], bytes]) -> bytes:
    """What a process of another uid gets."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            os.write(writer, work())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answer:
        said = answer.read()
    os.waitpid(pid, 0)
    return said


async def kill_launcher(launcher: Launcher, _: "asyncio.Task[object]") -> None:
    os.kill(launcher.pid, signal.SIGKILL)


async def leave(launcher: Launcher, _: "asyncio.Task[object]") -> None:
    await launcher.close()


async def cancel(_: Launcher, job: "asyncio.Task[object]") -> None:
    job.cancel()


@pytest.mark.parametrize("end", [kill_launcher, leave, cancel])
async def test_the_tool_of_a_job_ends_when_nobody_waits_for_it_any_more(
    stuck_tool: Callable[[], int], launcher: Launcher, image: int, end: End
) -> None:
    job = asyncio.ensure_future(launcher.run_job("format_ext4", PLACE, [image], timeout_s=100))
    tool = await asyncio.to_thread(stuck_tool)
    await end(launcher, job)
    await asyncio.to_thread(gone, tool)
    job.cancel()
    await asyncio.wait([job])


async def test_the_tool_of_a_job_ends_with_the_time_of_the_job(
    stuck_tool: Callable[[], int], launcher: Launcher, image: int
) -> None:
    with pytest.raises(DeadlineExceeded):
        await launcher.run_job("format_ext4", PLACE, [image], timeout_s=3)
    gone(stuck_tool())


async def test_a_job_that_fails_says_why_also_when_it_has_ended_by_then(launcher: Launcher, no_image: int) -> None:
    """Its end is noticed in two ways, in either order: nothing is asked of a pid that is nobody's any more."""
    for _ in range(200):
        with pytest.raises(ChildFailed) as failed:
            await launcher.run_job("grow", PLACE, [no_image], timeout_s=100)
        assert "LOOP_CONFIGURE" in failed.value.target


async def test_a_job_that_has_answered_has_no_file_any_more(answered: Path, launcher: Launcher, tmp_path: Path) -> None:
    """Whether it has ended by then or not: what is done next is not refused because the file is in use."""
    with sparse_file(tmp_path) as fd:
        await launcher.run_job("format_ext4", PLACE, [fd], timeout_s=100)
    wait_until(answered.exists, "the job has answered, and is there")
    with sparse_file(tmp_path) as fd:
        assert not is_open_elsewhere(fd)


async def test_a_tool_that_meets_a_full_disk_says_so_whether_it_is_full_still(launcher: Launcher, small: Path) -> None:
    with sparse_file(small) as fd, pytest.raises(ChildFailed) as failure:
        await launcher.run_job("format_ext4", PLACE, [fd], timeout_s=100)
    assert failure.value.errno == errno.ENOSPC


async def test_another_user_is_not_served(launcher: Launcher, runtime_dir: Path) -> None:
    path = runtime_dir / launcher_protocol.SOCKET_NAME
    path.chmod(0o666)

    def ask() -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(str(path))
            try:
                sock.send(b'{"op": "hello", "n": 1}')
                return sock.recv(4096) or b"closed"
            except (BrokenPipeError, ConnectionResetError):
                return b"closed"

    assert as_nobody(ask) == b"closed"
    await launcher.deposit("still", 0)


async def test_another_users_launcher_is_not_asked(runtime_dir: Path) -> None:
    """Whoever could put a socket there would be given the fds of every root."""
    path = runtime_dir / launcher_protocol.SOCKET_NAME
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    as_nobody(lambda: listener.listen(1) or b"")  # type: ignore[func-returns-value]  # SO_PEERCRED: who listened last
    launcher = Launcher(runtime_dir, ())
    with listener, pytest.raises(Internal, match=f"uid {NOBODY}"):
        await launcher.connect()
    await launcher.close()
