"""What a process needs before it can be started: its files, the spec, the fds that its supervisor gets.

    WantedExec -> Asked (kept on disk), ExecSpec (memfd) -> Prepared -> the supervisor's numbers

How these are used is in `sysproc.processes`; the format of the spec is in `sysproc.isolation.exec_spec`.
"""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

from sysproc.exec_files import Asked, ExecFiles, OpenFiles
from sysproc.failpoints import failpoint
from sysproc.isolation.exec_spec import ExecSpec, Fd, Window
from sysproc.isolation.exec_state import Slot, StatePage
from sysproc.isolation.seccomp_profiles import compile_profile
from sysproc.linux.pidfd import pidfd_open, pidfd_send_signal
from sysproc.running import RunningContainer
from sysproc.undo import Undo

END_PATIENCE_S = 60.0
DEFAULT_ENVIRONMENT = {
    b"PATH": b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    # As systemd and others say it to what runs inside.
    b"container": b"sysproc",
}
DEFAULT_TERM = b"xterm"


@dataclass(frozen=True)
class WantedExec:
    """A process that somebody asks for; the fields are checked already (`sysproc.server.validate`)."""

    exec_id: str
    argv: tuple[bytes, ...]
    environment: tuple[tuple[bytes, bytes], ...]
    directory: bytes
    uid: int
    gid: int | None
    window: Window | None
    stdin: bool
    spool_bytes: int
    drop_oldest: bool


@dataclass
class Prepared:
    """The files and fds of a process that is about to be started. close() undoes; unlock() hands the lock over."""

    opened: OpenFiles
    page: StatePage
    state: int
    spec: int
    wake: int
    news: int
    locked: bool = True

    def fds(self, init_pidfd: int) -> Mapping[int, int]:
        """What the supervisor gets, at its numbers."""
        files = {Fd.STDOUT: self.opened.stdout, Fd.STDERR: self.opened.stderr, Fd.STDIN: self.opened.stdin}
        there = {number: fd for number, fd in files.items() if fd is not None}
        ours = {Fd.SPEC: self.spec, Fd.STATE: self.state, Fd.WAKE: self.wake, Fd.NEWS: self.news, Fd.INIT: init_pidfd}
        return {int(number): fd for number, fd in {**there, **ours}.items()}

    def unlock(self) -> None:
        """Close what only the supervisor needs from now on. Idempotent."""
        if self.locked:
            self.locked = False
            os.close(self.state)
            os.close(self.spec)

    def close(self) -> None:
        """Close everything; call it once."""
        self.unlock()
        self.opened.close()
        self.page.close()
        os.close(self.wake)
        os.close(self.news)


def claim_and_prepare(files: ExecFiles, asked: Asked, container: RunningContainer, wanted: WantedExec) -> Prepared:
    """Take the id, and make everything that a supervisor needs. Blocks. Raises AlreadyExists."""
    files.claim(asked)
    with Undo() as undo:
        undo.add("the directory of the process", files.remove)
        failpoint("processes.start.after_claim")
        prepared = prepare(files, asked, container, wanted)
        undo.pop_all()
    return prepared


def prepare(files: ExecFiles, asked: Asked, container: RunningContainer, wanted: WantedExec) -> Prepared:
    """Make everything that a supervisor needs. Blocks."""
    with Undo() as undo:
        opened = files.make(asked)
        undo.add("the spool files", opened.close)
        spec = spec_of(container, wanted).to_memfd()
        undo.add("the spec", os.close, spec)
        wake, news = (os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(2))
        undo.add("an eventfd", os.close, wake)
        undo.add("an eventfd", os.close, news)
        state = files.make_state()
        undo.add("the state file", os.close, state)
        # Opened again: a mapping keeps its file description, and that one is locked.
        page = StatePage.open(files.path / "state")
        undo.pop_all()
    return Prepared(opened, page, state, spec, wake, news)


def asked_of(wanted: WantedExec) -> Asked:
    """What is remembered of a request."""
    return Asked(
        argv=wanted.argv,
        directory=wanted.directory,
        terminal=wanted.window is not None,
        stdin=wanted.stdin,
        spool_bytes=wanted.spool_bytes,
        drop_oldest=wanted.drop_oldest,
        asked_at=time.time(),
    )


def spec_of(container: RunningContainer, wanted: WantedExec) -> ExecSpec:
    """What the supervisor is told."""
    cgroup = container.cgroup
    cgroups = cgroup.group_to_join(container.init_pid) if container.delegate else cgroup.procs_dirs
    return ExecSpec(
        argv=wanted.argv,
        environment=merged_environment(container.environment, wanted),
        working_directory=wanted.directory,
        uid=wanted.uid,
        gid=wanted.gid,
        host_uid=container.uid_base + wanted.uid,
        window=wanted.window,
        stdin=wanted.stdin,
        spool_bytes=wanted.spool_bytes,
        drop_oldest=wanted.drop_oldest,
        seccomp_filter=seccomp_filter(container.profile),
        tasks=[os.fsencode(f"{directory}/tasks") for directory in cgroups.v1.values()],
        cgroup=None if cgroups.v2 is None else os.fsencode(cgroups.v2),
    )


@cache
def seccomp_filter(profile: str) -> bytes:
    """The filter of a profile on this machine."""
    return compile_profile(profile, os.uname().machine)


def merged_environment(container: Sequence[tuple[bytes, bytes]], wanted: WantedExec) -> list[bytes]:
    """Defaults, then the container's, then the request's. HOME, if nobody says it, is set by the supervisor."""
    defaults = dict(DEFAULT_ENVIRONMENT)
    if wanted.window is not None:
        defaults[b"TERM"] = DEFAULT_TERM
    merged = {**defaults, **dict(container), **dict(wanted.environment)}
    return [name + b"=" + value for name, value in merged.items()]


def end_supervisor(files: ExecFiles, page: StatePage) -> None:
    """The start failed, perhaps after it: whatever was started is ended, its process with it (PR_SET_PDEATHSIG).

    Blocks. Raises TimeoutError.
    """
    deadline = time.monotonic() + END_PATIENCE_S
    while files.supervised():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the supervisor of {files.exec_id} does not end")
        if pid := page[Slot.SUPERVISOR_PID]:
            with suppress(ProcessLookupError):
                pidfd = pidfd_open(pid)
                if files.supervised():
                    pidfd_send_signal(pidfd, signal.SIGKILL)
                os.close(pidfd)
        time.sleep(0.005)
