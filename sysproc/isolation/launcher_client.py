"""The daemon's end of the launcher: starts it if there is none, asks it, and starts another when it dies.

asyncio, from one event loop. The messages are drawn in `sysproc.isolation.launcher_protocol`; the other end is
`sysproc.isolation.launcher`.
"""

import asyncio
import hashlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import zstandard

from sysproc.errors import DeadlineExceeded, Internal, Unavailable
from sysproc.isolation import launcher_protocol as protocol
from sysproc.isolation.builder_spec import ContainerSpec
from sysproc.isolation.native import program_path
from sysproc.linux.peers import so_peercred
from sysproc.linux.unix_sockets import FdSet

START_TIMEOUT_S = 15.0
BUILD_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 30.0
LAUNCHER_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
INHERITED = ("SYSPROC_FAILPOINTS", "LD_LIBRARY_PATH")

NOTHING: Mapping[str, Any] = MappingProxyType({})

Progress = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Built:
    """A container that was built: its processes, what identifies its namespaces, and two fds that are the taker's."""

    init_pid: int
    init_start: int
    keeper_pid: int
    keeper_start: int
    userns_ino: int
    mntns_ino: int
    init_pidfd: int
    listener_fd: int


@dataclass(frozen=True)
class Supervisor:
    """The supervisor of one exec'd process; the pidfd is the taker's."""

    pid: int
    pidfd: int


@dataclass(frozen=True)
class Spawned:
    """A program that was started; the pidfd is the taker's."""

    pid: int
    pidfd: int


class ChildFailed(Exception):
    """A builder or a job failed: the call and what it was about, and the errno of it."""

    def __init__(self, number: int, target: str) -> None:
        super().__init__(f"{target}: {os.strerror(number)}")
        self.errno, self.target = number, target


class Launcher:
    """The connection to the launcher of one runtime directory; every call starts a launcher if there is none."""

    def __init__(self, runtime_dir: Path, cgroup_procs: Sequence[Path]) -> None:
        self._runtime_dir, self._cgroup_procs = runtime_dir, tuple(cgroup_procs)
        self._sock: socket.socket | None = None
        self._answers: dict[int, asyncio.Future[tuple[dict[str, Any], FdSet]]] = {}
        self._number = 0
        self._starting = asyncio.Lock()
        self._closed = False
        self._gone = asyncio.Event()
        self.pid = 0
        self.on_lost: Callable[[], None] = lambda: None

    # -- connection

    async def connect(self) -> None:
        """Reach the running launcher, or start one. One that runs other code is replaced. Raises Unavailable."""
        async with self._starting:
            if self._sock is not None:
                return
            if not self._reach():
                await self._start()
            await self._replace_if_outdated()

    def _reach(self) -> bool:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            sock.connect(str(self._runtime_dir / protocol.SOCKET_NAME))
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            return False
        if (uid := so_peercred(sock).uid) != os.geteuid():
            sock.close()
            raise not_started(self._runtime_dir, f"uid {uid} listens in its place")
        sock.setblocking(False)
        self._sock = sock
        asyncio.get_running_loop().add_reader(sock, self._readable)
        return True

    async def _start(self) -> None:
        """posix_spawn only: this process has threads and must not fork. READY is one byte on a pipe."""
        ready, told = os.pipe2(os.O_CLOEXEC)
        try:
            pid = spawn(self._runtime_dir, told, self._cgroup_procs)
        finally:
            os.close(told)
        try:
            await asyncio.to_thread(os.waitpid, pid, 0)
            async with asyncio.timeout(START_TIMEOUT_S):
                await wait_readable(ready)
        except TimeoutError:
            raise not_started(self._runtime_dir, "it does not get ready") from None
        finally:
            os.close(ready)
        if not self._reach():
            raise not_started(self._runtime_dir, "it ended at once")

    async def _replace_if_outdated(self) -> None:
        if await self._greet() == code_digest(program_path()):
            return
        kept = await self._withdraw_all()
        await self.quit()
        await self._start()
        if await self._greet() is None:
            raise not_started(self._runtime_dir, "it answers with errors only")
        for name, fd in kept.items():
            await self._ask(protocol.DEPOSIT, {"name": name}, [fd])
            os.close(fd)

    async def _greet(self) -> str | None:
        """The digest of what it runs, or None if it does not answer as it should."""
        try:
            hello, _ = await self._ask(protocol.HELLO)
        except ChildFailed:
            return None
        self.pid = hello["pid"]
        digest: str = hello["digest"]
        return digest

    async def _withdraw_all(self) -> dict[str, int]:
        """The listening sockets that it keeps; one that does not answer as it should keeps none that we get."""
        kept: dict[str, int] = {}
        with suppress(ChildFailed):
            for name in (await self._ask(protocol.HELLO))[0].get("deposited", []):
                _, fds = await self._ask(protocol.WITHDRAW, {"name": name})
                if len(fds):
                    kept[name] = fds.take()
        return kept

    def _readable(self) -> None:
        sock = self._sock
        if sock is None:
            return
        try:
            message, fds = protocol.receive(sock)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            message, fds = None, FdSet()
        if message is None:
            self._lost()
            return
        answer = self._answers.pop(message.get("n", -1), None)
        if answer is None or answer.done():
            fds.close()
        else:
            answer.set_result((message, fds))

    def _lost(self) -> None:
        self._disconnect()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(launcher_lost())
        self._answers.clear()
        if not self._closed:
            self.on_lost()

    def _disconnect(self) -> None:
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock)
            self._sock.close()
            self._sock = None
            self._gone.set()

    async def close(self) -> None:
        """Let go of the launcher; it goes on."""
        self._closed = True
        self._disconnect()

    async def quit(self) -> None:
        """End the launcher, and with it what it keeps. Raises TimeoutError if it does not end."""
        if self._sock is None:
            return
        self._gone.clear()
        self._send({"op": protocol.QUIT, "n": 0}, ())
        async with asyncio.timeout(START_TIMEOUT_S):
            await self._gone.wait()

    # -- asking

    async def _call(
        self, op: str, message: Mapping[str, Any] = NOTHING, fds: Sequence[int] = ()
    ) -> tuple[dict[str, Any], FdSet]:
        if self._sock is None:
            await self.connect()
        return await self._ask(op, message, fds)

    async def _ask(
        self, op: str, message: Mapping[str, Any] = NOTHING, fds: Sequence[int] = ()
    ) -> tuple[dict[str, Any], FdSet]:
        self._number += 1
        number = self._number
        answer = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            self._send({"op": op, "n": number, **message}, fds)
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                reply, got = await answer
        except TimeoutError:
            raise launcher_lost() from None
        finally:
            self._answers.pop(number, None)
        if "errno" in reply:
            got.close()
            raise ChildFailed(reply["errno"], reply["target"])
        return reply, got

    def _send(self, message: Mapping[str, Any], fds: Sequence[int]) -> None:
        if self._sock is None:
            raise launcher_lost()
        try:
            protocol.send(self._sock, message, fds)
        except (BrokenPipeError, ConnectionResetError):
            self._lost()
            raise launcher_lost() from None

    # -- what it does

    async def build(self, spec: ContainerSpec, *, vsf_fd: int, status_fd: int) -> Built:
        """Build a container. Raises ChildFailed (a call failed), Unavailable (the builder or launcher was killed)."""
        with Report() as report:
            fds = [vsf_fd, status_fd, report.theirs.fileno()]
            reply, _ = await self._call(protocol.BUILD, {"spec": spec.to_json()}, fds)
            async with self._or_killed(report, reply["pid"], BUILD_TIMEOUT_S):
                message, got = await report.outcome(None)
                with got:
                    await report.keeper_has_it(reply["pid"])
                    return Built(**message["built"], init_pidfd=got.take(), listener_fd=got.take())

    async def run_job(
        self,
        job: str,
        values: Mapping[str, Any],
        fds: Sequence[int] = (),
        *,
        timeout_s: float,
        progress: Progress | None = None,
    ) -> Mapping[str, Any]:
        """Run a job of `sysproc.isolation.jobs` in a forked child; its result. It is killed if nobody waits any more.

        Raises ChildFailed, Unavailable (it was killed), DeadlineExceeded.
        """
        with Report() as report:
            all_fds = [report.theirs.fileno(), *fds]
            reply, _ = await self._call(protocol.JOB, {"job": job, "values": dict(values)}, all_fds)
            async with self._or_killed(report, reply["pid"], timeout_s):
                message, got = await report.outcome(progress)
                got.close()
                result: Mapping[str, Any] = message["result"]
                return result

    @asynccontextmanager
    async def _or_killed(self, report: "Report", pid: int, timeout_s: float) -> AsyncIterator[None]:
        """While a builder or job is waited for; it is killed if that fails, or takes longer (DeadlineExceeded)."""
        report.theirs.close()
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except ChildFailed:
            raise
        except TimeoutError:
            await self._kill(pid, report)
            raise child_too_slow(timeout_s) from None
        except BaseException:
            await self._kill(pid, report)
            raise

    async def _kill(self, pid: int, report: "Report") -> None:
        """Kill a builder or job, and wait until it is gone; a launcher that is gone has taken it along."""
        with suppress(Unavailable):
            await self._ask(protocol.KILL, {"pid": pid})
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await report.ended()

    async def spawn_exec(self, argv: Sequence[str], fds: Mapping[int, int]) -> Supervisor:
        """Start the C program with these arguments and `number: fd`; the fds stay the caller's too."""
        message = {"argv": list(argv), "numbers": list(fds)}
        reply, got = await self._call(protocol.EXEC, message, list(fds.values()))
        with got:
            return Supervisor(reply["pid"], got.take())

    async def spawn(self, argv: Sequence[str], environment: Mapping[str, str], fds: Mapping[int, int]) -> Spawned:
        """Start a program with these arguments and `number: fd`, which outlives us and the launcher."""
        message = {"argv": list(argv), "environment": dict(environment), "numbers": list(fds)}
        reply, got = await self._call(protocol.SPAWN, message, list(fds.values()))
        with got:
            return Spawned(reply["pid"], got.take())

    async def deposit(self, name: str, fd: int) -> None:
        """Leave a duplicate of a listening socket with the launcher, so that it outlives this process."""
        await self._call(protocol.DEPOSIT, {"name": name}, [fd])

    async def withdraw(self, name: str) -> int | None:
        """A duplicate of what was left under this name; the launcher keeps its own."""
        _, got = await self._call(protocol.WITHDRAW, {"name": name})
        with got:
            return got.take() if len(got) else None


class Report:
    """A pair of sockets for one child: it reports on `theirs`, `outcome` reads `ours`."""

    def __init__(self) -> None:
        kind = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, kind)
        self.ours.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.ours.close()
        self.theirs.close()

    async def outcome(self, progress: Progress | None) -> tuple[dict[str, Any], FdSet]:
        """The last message, and its fds. Raises ChildFailed, or Unavailable if the child ended without one."""
        while True:
            await wait_readable(self.ours.fileno())
            message, fds = protocol.receive(self.ours)
            if message is None:
                raise child_killed()
            if "failed" in message:
                fds.close()
                raise ChildFailed(message["failed"]["errno"], message["failed"]["target"])
            if "progress" not in message:
                return message, fds
            fds.close()
            if progress is not None:
                progress(message["progress"])

    async def keeper_has_it(self, pid: int) -> None:
        """Wait until the builder has become the keeper: until then it dies with us or with the launcher.

        Only then may anybody be told, or write down, that the container runs. Raises ChildFailed, Unavailable.
        """
        await wait_readable(self.ours.fileno())
        message, fds = protocol.receive(self.ours)
        fds.close()
        if message is not None:
            raise ChildFailed(message["failed"]["errno"], message["failed"]["target"])
        if not is_keeper(pid):
            raise child_killed()

    async def ended(self) -> None:
        """Wait until no process holds the other end any more."""
        with suppress(ConnectionResetError):
            await wait_readable(self.ours.fileno())
            while self.ours.recv(1):
                await wait_readable(self.ours.fileno())


def is_keeper(pid: int) -> bool:
    """Whether a builder has become the keeper. One that was killed instead has no memory, and no arguments, any more.

    execve(2) takes the new memory before it closes fds, and the end of a process gives its memory back before them.
    """
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sysproc: keep ")
    except (FileNotFoundError, ProcessLookupError):
        return False


async def wait_readable(fd: int) -> None:
    """Wait until a read of this fd would not block, the end of file included."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)


def spawn(runtime_dir: Path, ready_fd: int, cgroup_procs: Sequence[Path]) -> int:
    """Start the launcher by posix_spawn, which uses vfork: allowed in a process with threads. Returns its first pid.

    It loads the standard library and ours; that its jobs find zstandard's, it is told where that is.
    """
    package_parent, libraries = str(Path(__file__).resolve().parents[2]), str(Path(zstandard.__file__).parents[1])
    code = (
        "import sys; sys.path = [sys.argv[1], *sys.path, sys.argv[2]]; "
        "from sysproc.isolation.launcher import main; main(sys.argv[3:])"
    )
    inherited = {name: value for name, value in os.environ.items() if name.startswith(INHERITED)}
    arguments = [package_parent, libraries, str(runtime_dir), "3", code_digest(program_path()), *map(str, cgroup_procs)]
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", "-c", code, *arguments],
        # What is linked before it forks is linked once, and not in each child.
        {"PATH": LAUNCHER_PATH, "LD_BIND_NOW": "1", **inherited},
        file_actions=[(os.POSIX_SPAWN_DUP2, ready_fd, 3)],
        setsid=True,
    )


def launcher_lost() -> Unavailable:
    """The error for a call that was under way when the launcher ended."""
    return Unavailable(
        "The launcher process ended while it was asked.",
        resolution="Try again: the service starts another one.",
        reason="LAUNCHER_LOST",
    )


def child_killed() -> Unavailable:
    """The error for a builder or job that was killed."""
    return Unavailable(
        "The process that did this was killed before it was done.",
        resolution="Try again; if it happens again, look for the kernel's out-of-memory messages.",
        reason="CHILD_KILLED",
    )


def child_too_slow(timeout_s: float) -> DeadlineExceeded:
    """The error for a builder or job that was ended because it took too long."""
    return DeadlineExceeded(
        f"It was not done within {timeout_s:.0f} s and was ended.",
        resolution="The disk may be overloaded: try again.",
        reason="CHILD_TOO_SLOW",
    )


def not_started(runtime_dir: Path, why: str) -> Internal:
    """The error for a launcher that does not come up."""
    return Internal(
        f"The launcher process cannot be started: {why}.",
        resolution=f"Its own words are in {runtime_dir / protocol.LOG_NAME}.",
        reason="LAUNCHER_NOT_STARTED",
    )


def code_digest(program: Path) -> str:
    """What the launcher runs: the sources of its packages and the C program. Another digest, another launcher."""
    package = Path(__file__).resolve().parent.parent
    sources = sorted([*package.glob("linux/*.py"), *package.glob("isolation/**/*.py"), *package.glob("*.py")])
    digest = hashlib.sha256()
    for path in (*sources, program):
        digest.update(os.fsencode(path.name) + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
