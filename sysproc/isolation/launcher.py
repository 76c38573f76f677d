"""The launcher: the small process that forks what the daemon must not fork, and outlives it.

Single-threaded, the standard library, `sysproc.linux` and `sysproc.isolation` only. It keeps no state but the
listening sockets deposited with it, so that it can be killed or replaced at any moment. Its loop makes no call that
can wait for a disk: whatever does runs in a forked child.

It stays in the host's mount namespace, and so do the keepers and supervisors that it starts: in a namespace of its
own it would keep every disk that was mounted when it started, for umount(8) reaches only namespaces that the host
shares its / with, and without systemd that is private. It mounts nothing; builders and jobs do, in namespaces of their
own that do not last. Messages: `sysproc.isolation.launcher_protocol`; the daemon's end:
`sysproc.isolation.launcher_client`; what the children do: `builder` and `jobs` beside it.
"""

import errno
import fcntl
import gc
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from sysproc.failpoints import VARIABLE as FAILPOINTS
from sysproc.failpoints import failpoint
from sysproc.isolation import launcher_protocol as protocol
from sysproc.isolation.builder import Order, build
from sysproc.isolation.builder_spec import ContainerSpec
from sysproc.isolation.inside import default_signals
from sysproc.isolation.jobs import run_job
from sysproc.isolation.native import program_path
from sysproc.isolation.sealed_program import sealed_copy
from sysproc.isolation.seccomp_profiles import compile_profile
from sysproc.linux.peers import so_peercred
from sysproc.linux.pidfd import pidfd_open, pidfd_send_signal
from sysproc.linux.prctl import set_child_subreaper, set_dumpable, set_pdeathsig
from sysproc.linux.unix_sockets import FdSet

_HIGH_FD = 64
# Python ignores two, and we wake up by the third; all others are default from the beginning.
_IGNORED_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)
_CHANGED_SIGNALS = (*_IGNORED_SIGNALS, signal.SIGCHLD)
Message = dict[str, Any]


@dataclass(frozen=True)
class Child:
    """What was forked. It is killed by its pidfd: once it has been reaped, its pid may be another's."""

    pid: int
    pidfd: int


@dataclass
class Connection:
    """One daemon, and what was forked for it that has not been handed over yet, by its lifeline."""

    sock: socket.socket
    unfinished: dict[int, Child] = field(default_factory=dict)


class Launcher:
    """The poll loop and its handlers."""

    def __init__(self, runtime_dir: Path, listener: socket.socket, digest: str) -> None:
        self._listener, self._digest = listener, digest
        self._frame = runtime_dir / protocol.FRAME_NAME
        self._frame.mkdir(exist_ok=True)
        self._home_mntns = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        # At a high number for good: its stack is never closed.
        self._program = above(sealed_copy(program_path().read_bytes()), ExitStack())
        self._filters: dict[str, bytes] = {}
        self._deposited: dict[str, int] = {}
        self._connections: dict[int, Connection] = {}
        self._lifelines: dict[int, Connection] = {}
        self._poll = select.poll()
        self._handlers: dict[str, Callable[[Connection, Message, FdSet], tuple[Message, list[int]]]] = {
            protocol.HELLO: self._hello,
            protocol.BUILD: self._build,
            protocol.JOB: self._job,
            protocol.EXEC: self._exec,
            protocol.SPAWN: self._spawn,
            protocol.KILL: self._kill,
            protocol.DEPOSIT: self._deposit,
            protocol.WITHDRAW: self._withdraw,
        }

    def run(self) -> None:
        """Serve until QUIT."""
        wake = wake_on_child_exit()
        for fd in (wake, self._listener.fileno()):
            self._poll.register(fd, select.POLLIN)
        while True:
            for fd, _ in self._poll.poll():
                if fd == wake:
                    reap(wake)
                elif fd == self._listener.fileno():
                    self._accept()
                elif fd in self._lifelines:
                    self._handed_over(fd)
                elif fd in self._connections and not self._serve(self._connections[fd]):
                    return

    # -- connections

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        if (uid := so_peercred(sock).uid) != os.geteuid():
            complain(f"uid {uid} was refused")
            sock.close()
            return
        self._connections[sock.fileno()] = Connection(sock)
        self._poll.register(sock, select.POLLIN)

    def _serve(self, connection: Connection) -> bool:
        """Answer one message; False after QUIT."""
        try:
            message, fds = protocol.receive(connection.sock)
        except (OSError, ValueError) as failure:
            complain(f"bad message: {failure}")
            self._drop(connection)
            return True
        if message is None:
            self._drop(connection)
            return True
        with fds:
            if message.get("op") == protocol.QUIT:
                return False
            self._answer(connection, message, fds)
        return True

    def _answer(self, connection: Connection, message: Message, fds: FdSet) -> None:
        number = message.get("n")
        try:
            failpoint("launcher.before_answer")
            reply, handed = self._handlers[message["op"]](connection, message, fds)
        except (KeyError, TypeError, ValueError, IndexError) as failure:
            reply, handed = {"errno": errno.EINVAL, "target": repr(failure)}, []
        except OSError as failure:
            reply, handed = {"errno": failure.errno, "target": str(failure.filename or failure.strerror)}, []
        fds.close()  # before anybody is told: until then, what came with the message is in use
        try:
            protocol.send(connection.sock, {"n": number, **reply}, handed)
        except OSError:
            self._drop(connection)
        finally:
            for fd in handed:
                os.close(fd)

    def _drop(self, connection: Connection) -> None:
        """Its daemon is gone: nobody waits for what is unfinished. What was handed over just now is finished."""
        if self._connections.pop(connection.sock.fileno(), None) is None:
            return
        self._poll.unregister(connection.sock)
        for lifeline, child in connection.unfinished.items():
            if not reader_is_gone(lifeline):
                pidfd_send_signal(child.pidfd, signal.SIGKILL)
            self._forget(lifeline, child)
        connection.sock.close()

    # -- what is forked

    def _fork(self, connection: Connection, work: Callable[[], NoReturn]) -> int:
        """Fork; the lifeline ends when the child ends or executes another program, which is when it is handed over."""
        lifeline, held = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            run_child(lifeline, work)
        os.close(held)
        connection.unfinished[lifeline] = Child(pid, pidfd_open(pid))
        self._lifelines[lifeline] = connection
        self._poll.register(lifeline, 0)
        return pid

    def _handed_over(self, lifeline: int) -> None:
        self._forget(lifeline, self._lifelines[lifeline].unfinished.pop(lifeline))

    def _forget(self, lifeline: int, child: Child) -> None:
        del self._lifelines[lifeline]
        self._poll.unregister(lifeline)
        os.close(lifeline)
        os.close(child.pidfd)

    # -- handlers

    def _hello(self, _: Connection, __: Message, ___: FdSet) -> tuple[Message, list[int]]:
        return {"pid": os.getpid(), "digest": self._digest, "deposited": sorted(self._deposited)}, []

    def _build(self, connection: Connection, message: Message, fds: FdSet) -> tuple[Message, list[int]]:
        spec = ContainerSpec.from_json(message["spec"])
        seccomp_filter = self._filter(spec.profile)

        def work() -> NoReturn:
            gc.disable()
            vsf, status = fds.take(), fds.take()
            report = socket.socket(fileno=fds.take())
            build(Order(spec, self._frame, vsf, status, report, self._program, self._home_mntns, seccomp_filter))

        return {"pid": self._fork(connection, work)}, []

    def _filter(self, profile: str) -> bytes:
        if profile not in self._filters:
            self._filters[profile] = compile_profile(profile, os.uname().machine)
        return self._filters[profile]

    def _job(self, connection: Connection, message: Message, fds: FdSet) -> tuple[Message, list[int]]:
        name, values = message["job"], message["values"]

        def work() -> NoReturn:
            report = socket.socket(fileno=fds.take())
            run_job(name, values, [fds.take() for _ in range(len(fds))], report)

        return {"pid": self._fork(connection, work)}, []

    def _exec(self, _: Connection, message: Message, fds: FdSet) -> tuple[Message, list[int]]:
        """The C program."""
        return spawned(f"/proc/self/fd/{self._program}", message, {}, fds)

    def _spawn(self, _: Connection, message: Message, fds: FdSet) -> tuple[Message, list[int]]:
        """Another program, with the failpoints of this process."""
        armed = {name: os.environ[name] for name in (FAILPOINTS,) if name in os.environ}
        return spawned(message["argv"][0], message, {**message["environment"], **armed}, fds)

    def _kill(self, connection: Connection, message: Message, _: FdSet) -> tuple[Message, list[int]]:
        for child in connection.unfinished.values():
            if child.pid == message["pid"]:
                pidfd_send_signal(child.pidfd, signal.SIGKILL)
        return {}, []

    def _deposit(self, _: Connection, message: Message, fds: FdSet) -> tuple[Message, list[int]]:
        fd = fds.take()
        old, self._deposited[message["name"]] = self._deposited.get(message["name"]), fd
        if old is not None:
            os.close(old)
        return {}, []

    def _withdraw(self, _: Connection, message: Message, __: FdSet) -> tuple[Message, list[int]]:
        fd = self._deposited.get(message["name"])
        return {}, [] if fd is None else [os.dup(fd)]


def spawned(program: str, message: Message, environment: dict[str, str], fds: FdSet) -> tuple[Message, list[int]]:
    """posix_spawn (by vfork); the fds come from above, so that no number is taken twice."""
    with ExitStack() as stack:
        high = [above(fds.take(), stack) for _ in message["numbers"]]
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for fd, number in zip(high, message["numbers"], strict=True)]
        pid = os.posix_spawn(
            program,
            message["argv"],
            environment,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
        )
    return {"pid": pid}, [os.pidfd_open(pid)]


def complain(text: str) -> None:
    """To the launcher's log file, which is its standard error."""
    sys.stderr.write(f"launcher: {text}\n")
    sys.stderr.flush()


def run_child(lifeline: int, work: Callable[[], NoReturn]) -> NoReturn:
    """A forked child's whole life; nothing of it returns to the loop."""
    try:
        set_pdeathsig(signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        default_signals(_CHANGED_SIGNALS)
        os.close(lifeline)
        work()
    except BaseException as failure:
        complain(f"child failed: {failure!r}")
    finally:
        os._exit(1)


def reader_is_gone(pipe: int) -> bool:
    """Whether the other end of a pipe that we could write to is closed."""
    poll = select.poll()
    poll.register(pipe, 0)
    return bool(poll.poll(0))


def above(fd: int, stack: ExitStack) -> int:
    """Move an fd out of the way of the numbers that a spawned program gets; closed with the stack."""
    try:
        high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH_FD)
    finally:
        os.close(fd)
    stack.callback(os.close, high)
    return high


def wake_on_child_exit() -> int:
    """A pipe that is readable after SIGCHLD."""
    wake, poke = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(poke, warn_on_full_buffer=False)
    return wake


def reap(wake: int) -> None:
    """Collect every child that has ended; how they ended is in their status files and reports."""
    os.read(wake, 4096)
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return


def detach(ready: int, log: Path) -> None:
    """Become nobody's child, with no terminal; the first process ends when `ready` was told or is gone."""
    if os.fork():
        os._exit(0)
    os.chdir("/")
    null, errors = os.open("/dev/null", os.O_RDWR), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for fd, number in ((null, 0), (null, 1), (errors, 2)):
        os.dup2(fd, number)
    os.set_inheritable(ready, False)
    os.closerange(3, ready)
    os.closerange(ready + 1, 4096)


def main(arguments: list[str]) -> None:
    """`launcher RUNTIME_DIR READY_FD DIGEST CGROUP_PROCS…`: started by `sysproc.isolation.launcher_client` only."""
    runtime_dir, ready, digest, cgroup_procs = Path(arguments[0]), int(arguments[1]), arguments[2], arguments[3:]
    detach(ready, runtime_dir / protocol.LOG_NAME)
    # The daemon's own is 077: what is made for containers is for all who are in them.
    os.umask(0o022)
    lock = os.open(runtime_dir / protocol.LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os._exit(0)  # there is one already
    set_dumpable(False)
    set_child_subreaper()
    default_signals(signal.valid_signals())
    for number in _IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    for path in cgroup_procs:
        Path(path).write_text("0")
    launcher = Launcher(runtime_dir, listen(runtime_dir), digest)
    os.write(ready, b"1")
    os.close(ready)
    share_memory()
    launcher.run()


def share_memory() -> None:
    """What is there by now stays, in each child too: a collection would write to all of it, and so copy it."""
    gc.collect()
    gc.freeze()


def listen(runtime_dir: Path) -> socket.socket:
    """The launcher's own socket, for root only."""
    path = runtime_dir / protocol.SOCKET_NAME
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    old = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(old)
    listener.listen(8)
    return listener
