"""B: the process that builds one container from outside, and then becomes its keeper.

    launcher            B (its child, in the host's namespaces)                 I (B's child)
      fork ───────────▶ dies with the launcher; own mount namespace
                        as the base uid: clone3 ──────────────────────────────▶ born; joins version 1's cgroups; waits
                        id maps; MAPPED ───────────────────────────────────────▶ proc, sys, devpts, …, detached
                        VSF -> loop -> detached mount, nodev
                        idmap; attach root, /dev, /run, /run/sysproc, /sys
                        attach those of I ◀───────────────────── MOUNTS + fds ─ waits
                        GO + root ─────────────────────────────────────────────▶ a copy of all with locked flags, …
                        ◀── EOF: execve done │ FAILED op errno target ─────────  execve of init
                        leaves its mount namespace (which ends with it)
      daemon ◀───────── BUILT pids, inodes + init pidfd, listener │ FAILED op errno target │ EOF: B was killed
                        execve of `keep`: the same process, still init's parent

What happens on the side of I is in `sysproc.isolation.inside`; who forks B is `sysproc.isolation.launcher`.
"""

import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from sysproc.failpoints import failpoint
from sysproc.isolation import host_mounts
from sysproc.isolation.builder_spec import ContainerSpec
from sysproc.isolation.inside import become_init, hierarchy_directory
from sysproc.isolation.root_mount import idmap, make_mount_points, make_tmp, mount_detached
from sysproc.isolation.sealed_program import another_copy
from sysproc.linux.mounts import AT_FDCWD, MS_REC, MS_SLAVE, mount, move_mount
from sysproc.linux.namespaces import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    clone3,
    setns,
    unshare,
    write_id_maps,
)
from sysproc.linux.pidfd import pidfd_send_signal
from sysproc.linux.prctl import SECBIT_NO_SETUID_FIXUP, set_dumpable, set_pdeathsig, set_securebits
from sysproc.linux.process import execveat, start_time
from sysproc.linux.unix_sockets import recv_with_fds, send_with_fds
from sysproc.undo import Undo

_NAMESPACES = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS

# Of a failure's text, in bytes: six times as long in JSON at most, and so in one read of 4096.
MOST_TEXT = 600

KEEPER_STATUS, KEEPER_INIT_PIDFD, KEEPER_LISTENER, KEEPER_DEV = 3, 4, 5, 6


@dataclass(frozen=True)
class Order:
    """What the launcher hands to B besides the spec: where to build, and the fds that are B's from now on."""

    spec: ContainerSpec
    frame: Path
    vsf_fd: int
    status_fd: int
    report: socket.socket
    program_fd: int
    home_mntns: int
    seccomp_filter: bytes


@dataclass(frozen=True)
class Born:
    """I as B sees it."""

    pid: int
    pidfd: int
    go: socket.socket


def build(order: Order) -> NoReturn:
    """Build the container, report, and become its keeper; on failure report it and exit."""
    try:
        with Undo() as undo:
            born, listener, dev = _build(order, undo)
            report_built(order.report, born, listener)
            failpoint("build.after_report")
            undo.pop_all()
    except OSError as failure:
        report_failed(order.report, failure)
        os._exit(1)
    become_keeper(order, born.pidfd, listener.fileno(), dev)


def _build(order: Order, undo: Undo) -> tuple[Born, socket.socket, int]:
    spec = order.spec
    enter_own_mount_namespace()
    failpoint("build.after_mount_namespace")
    born = bear(order)
    undo.add("the unfinished init", pidfd_send_signal, born.pidfd, signal.SIGKILL)
    failpoint("build.after_clone")
    write_id_maps(born.pid, spec.uid_base, spec.uid_count)
    born.go.send(b"MAPPED")
    be_killed_like_others(born.pid)
    root = mount_detached(order.vsf_fd, fstype=spec.root_fstype, offset=spec.root_offset, size=spec.root_size)
    make_mount_points(root)
    make_tmp(root)
    failpoint("build.after_root")
    listener, dev = attach_all(order, root, born.pid)
    attach_own(born.go, root)
    failpoint("build.after_mounts")
    send_with_fds(born.go, b"GO", [root])
    os.close(root)
    wait_for_end(born.go)
    failpoint("build.after_init")
    setns(order.home_mntns, CLONE_NEWNS)
    return born, listener, dev


def enter_own_mount_namespace() -> None:
    """Die with the launcher until the container is handed over; and mount what nobody else sees.

    A slave, not private: what the host unmounts meanwhile goes here as well, where its / is shared.
    """
    set_pdeathsig(signal.SIGKILL)
    unshare(CLONE_NEWNS)
    mount("none", "/", flags=MS_REC | MS_SLAVE)


def bear(order: Order) -> Born:
    """I, born in the container's cgroup of version 2 where there is one."""
    spec = order.spec

    with opened_tasks(spec) as tasks, contextlib.ExitStack() as stack:
        program = another_copy(order.program_fd)
        stack.callback(os.close, program)

        def live(go: socket.socket) -> NoReturn:
            join_cgroups(tasks)
            become_init(spec, go, order.seccomp_filter, program)

        if spec.cgroups.v2 is None:
            return bear_as(spec.uid_base, live)
        cgroup = os.open(spec.cgroups.v2, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, cgroup)
        return bear_as(spec.uid_base, live, cgroup)


def bear_as(base: int, live: Callable[[socket.socket], NoReturn], cgroup_fd: int | None = None) -> Born:
    """clone3 with all namespaces, as the base uid, so that the kernel's per-user limits are the container's own.

    The child gets one end of a pair of sockets; what `live` raises is sent there as FAILED.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    set_securebits(SECBIT_NO_SETUID_FIXUP)
    os.setresgid(-1, base, -1)
    os.setresuid(-1, base, -1)
    pid, pidfd = clone_into_namespaces(cgroup_fd)
    if pid == 0:
        ours.close()
        _live(theirs, live)
    os.setresuid(-1, 0, -1)
    os.setresgid(-1, 0, -1)
    set_pdeathsig(signal.SIGKILL)  # a change of ids has cleared it
    theirs.close()
    return Born(pid, pidfd, ours)


def clone_into_namespaces(cgroup_fd: int | None) -> tuple[int, int]:
    """clone3 with a time namespace, too: locks and watches on the file of a shared one cross.

    EINVAL: the kernel has none, or its clone3 does not know that flag (before Linux 6.4 and 6.1.23).
    """
    try:
        return clone3(_NAMESPACES | CLONE_NEWTIME, cgroup_fd=cgroup_fd)
    except OSError as failure:
        if failure.errno != errno.EINVAL:
            raise
        return clone3(_NAMESPACES, cgroup_fd=cgroup_fd)


def _live(go: socket.socket, live: Callable[[socket.socket], NoReturn]) -> NoReturn:
    """The child's life in Python; a failure is told, then it is gone."""
    try:
        set_pdeathsig(signal.SIGKILL)
        set_dumpable(False)
        live(go)
    except OSError as failure:
        go.send(failure_message(failure))
    except BaseException as failure:
        go.send(failure_message(OSError(errno.EIO, "unexpected", repr(failure))))
    finally:
        os._exit(1)


def be_killed_like_others(pid: int) -> None:
    """The daemon's own score, which protects it when memory runs out, is not for containers (proc(5))."""
    fd = os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"0")
    finally:
        os.close(fd)


@contextlib.contextmanager
def opened_tasks(spec: ContainerSpec) -> Iterator[list[tuple[str, int]]]:
    """The `tasks` files of version 1, open: whoever writes into them acts with our permission."""
    with contextlib.ExitStack() as stack:
        found = []
        for directory in spec.cgroups.v1.values():
            path = f"{directory}/tasks"
            found.append((path, os.open(path, os.O_WRONLY | os.O_CLOEXEC)))
            stack.callback(os.close, found[-1][1])
        yield found


def join_cgroups(tasks: Sequence[tuple[str, int]]) -> None:
    """I, still with one thread, puts itself into every hierarchy of version 1.

    A single thread that moves itself needs no threadgroup lock (Linux 5.5), and so no RCU grace period of 8 ms,
    which is what a write of its pid into `cgroup.procs` waits for.
    """
    for path, fd in tasks:
        try:
            os.write(fd, b"0")
        except OSError as failure:
            raise OSError(failure.errno, failure.strerror, f"attach to {path}") from None
        os.close(fd)


def attach_all(order: Order, root: int, init_pid: int) -> tuple[socket.socket, int]:
    """Idmap and attach the root at the frame, and the host's mounts below it."""
    spec = order.spec
    with contextlib.ExitStack() as fds:
        userns = os.open(f"/proc/{init_pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        fds.callback(os.close, userns)
        idmap(root, userns)
        move_mount(root, AT_FDCWD, order.frame)
        dev = host_mounts.make_dev(spec.uid_base)
        run = host_mounts.make_run(spec.uid_base)
        directory, listener = host_mounts.make_socket_directory(spec.uid_base, spec.listen_backlog)
        frame_of_sys = host_mounts.make_sys(spec.uid_base, _cgroup_directories(spec))
        for fd in (run, directory, frame_of_sys):
            fds.callback(os.close, fd)
        for made, path in ((dev, "dev"), (run, "run"), (directory, "run/sysproc"), (frame_of_sys, "sys")):
            host_mounts.attach(made, root, path)
    return listener, dev


def attach_own(go: socket.socket, root: int) -> None:
    """Attach what the container's init has made, in an order in which each target is there."""
    message, fds = recv_with_fds(go)
    with fds:
        if not len(fds):
            raise error_of(message) if message else OSError(errno.ECHILD, os.strerror(errno.ECHILD), "init has ended")
        for path in message.decode().split("\n"):
            made = fds.take()
            host_mounts.attach(made, root, path)
            os.close(made)


def _cgroup_directories(spec: ContainerSpec) -> list[str]:
    named = [hierarchy_directory(name) for name in spec.cgroups.v1]
    return [*named, "unified"] if named and spec.cgroups.v2 is not None else named


def wait_for_end(go: socket.socket) -> None:
    """EOF: the other has done its part, or has executed its program. A message: what failed, raised as OSError."""
    message = go.recv(4096)
    if message:
        raise error_of(message)
    go.close()


def failure_message(failure: OSError) -> bytes:
    """op and target as the wrappers of `sysproc.linux` put them into the filename; cut to what is read at once."""
    said = failure.filename or failure.strerror or ""
    target = os.fsencode(said) if isinstance(said, (str, bytes)) else str(said).encode()
    fields = {"errno": failure.errno or errno.EIO, "target": target[:MOST_TEXT].decode(errors="backslashreplace")}
    return json.dumps({"failed": fields}).encode()


def error_of(message: bytes) -> OSError:
    """The failure that a message tells of."""
    fields = json.loads(message)["failed"]
    return OSError(fields["errno"], os.strerror(fields["errno"]), fields["target"])


def report_failed(report: socket.socket, failure: OSError) -> None:
    """Tell the daemon what failed; if nobody listens any more, nobody wants to know."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        send_with_fds(report, failure_message(failure))


def report_built(report: socket.socket, born: Born, listener: socket.socket) -> None:
    """Tell the daemon of the container, and hand over its fds."""
    facts = {
        "init_pid": born.pid,
        "init_start": start_time(born.pid),
        "keeper_pid": os.getpid(),
        "keeper_start": start_time(os.getpid()),
        "userns_ino": os.stat(f"/proc/{born.pid}/ns/user").st_ino,
        "mntns_ino": os.stat(f"/proc/{born.pid}/ns/mnt").st_ino,
    }
    send_with_fds(report, json.dumps({"built": facts}).encode(), [born.pidfd, listener.fileno()])


def become_keeper(order: Order, init_pidfd: int, listener: int, dev: int) -> NoReturn:
    """Put the fds where the keeper, and a later daemon, looks for them; then execve."""
    wanted = {
        KEEPER_STATUS: order.status_fd,
        KEEPER_INIT_PIDFD: init_pidfd,
        KEEPER_LISTENER: listener,
        KEEPER_DEV: dev,
    }
    moved = {number: duplicate_above(fd) for number, fd in wanted.items()}
    program = duplicate_above(order.program_fd)
    for number, fd in moved.items():
        os.dup2(fd, number, inheritable=True)
    set_pdeathsig(0)
    execveat(program, [f"sysproc: keep {order.spec.id}", "keep"], {})


def duplicate_above(fd: int) -> int:
    """A close-on-exec duplicate above all the fixed numbers (F_DUPFD_CLOEXEC)."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 32)
