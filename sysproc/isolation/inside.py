"""I: the process that becomes a container's init, from its birth in the new namespaces to its execve.

    born by clone3 in new user, pid, net, ipc, uts namespaces, with no ids mapped yet; joins its cgroups
      <- MAPPED (the ids)
      uid 0, own cgroup namespace; its filesystems, detached: proc, sys, devpts, shm, mqueue, cgroups
      -> MOUNTS + fds (the builder attaches them below the root, in its own mount namespace)
      <- GO + fd of the root
      own mount namespace: a copy of the builder's that the container owns, so that every flag in it is locked
      the root copied onto itself; pivot_root; the rest detached
      hostname, lo, files that programs need, keyring, limits, seccomp, signals
      execve of the C program -> EOF of the report socket
      any failure -> FAILED op errno target on the report socket

It runs before anything of the image does, and executes nothing of it. The host's side: `sysproc.isolation.builder`.
"""

import _thread
import errno
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn, TypeVar

from sysproc.failpoints import failpoint
from sysproc.isolation.builder_spec import ContainerSpec
from sysproc.isolation.host_mounts import SYS_CGROUP, SYS_PIECES
from sysproc.linux.keyring import join_new_session_keyring
from sysproc.linux.mounts import (
    AT_FDCWD,
    AT_RECURSIVE,
    MNT_DETACH,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    OPEN_TREE_CLONE,
    move_mount,
    new_mount,
    open_tree,
    pivot_root,
    umount2,
)
from sysproc.linux.namespaces import CLONE_NEWCGROUP, CLONE_NEWNS, unshare
from sysproc.linux.network import set_link_up
from sysproc.linux.process import execveat
from sysproc.linux.seccomp import load_filter
from sysproc.linux.unix_sockets import recv_with_fds, send_with_fds

T = TypeVar("T")

# Of the host's /proc/sys/kernel/pty/max (4096), which all containers share.
TERMINALS = 256

_SAFE = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
_OWN_MOUNTS: tuple[tuple[str, str, dict[str, str | None], int], ...] = (
    ("proc", "proc", {}, _SAFE),
    (
        "devpts",
        "dev/pts",
        {"newinstance": None, "ptmxmode": "0666", "mode": "0620", "gid": "5", "max": str(TERMINALS)},
        _SAFE ^ MOUNT_ATTR_NODEV,
    ),
    ("tmpfs", "dev/shm", {"mode": "1777"}, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV),
    ("mqueue", "dev/mqueue", {}, _SAFE),
)
_DEFAULT_FILES = (
    ("etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n127.0.1.1\t{hostname}\n"),
    ("etc/hostname", "{hostname}\n"),
    ("etc/resolv.conf", ""),
)
# A file that is no file, below what is no directory, on a root that is full: the container runs without it.
_LEFT_AS_IT_IS = frozenset(
    (
        errno.EEXIST,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENXIO,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOSPC,
        errno.EDQUOT,
    )
)


def become_init(spec: ContainerSpec, go: socket.socket, seccomp_filter: bytes, program: int) -> NoReturn:
    """Wait for GO, finish the container from inside, and become its init."""
    become_root(go)
    unshare(CLONE_NEWCGROUP)
    send_own_mounts(spec, go)
    root = enter_attached_root(go)
    failpoint("inside.after_unshare")
    make_it_the_root(root)
    failpoint("inside.after_pivot")
    os.umask(0o022)  # before files are made that everybody inside reads
    name_things(spec.hostname)
    clean_up_process(spec)
    load_filter(seccomp_filter)
    execveat(program, ["init"], {})


def become_root(go: socket.socket) -> None:
    """Wait until the ids are mapped; become uid 0 of the container."""
    if go.recv(16) != b"MAPPED":
        os._exit(1)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def send_own_mounts(spec: ContainerSpec, go: socket.socket) -> None:
    """Make the filesystems of the container's own namespaces, and hand them to the builder.

    Only in a mount namespace of the container's may they be made, and only the builder's may they be attached in if
    their flags are to be locked. So a thread makes them: it alone enters a mount namespace of its own, and leaves it
    by ending.
    """
    mounts = in_a_thread(lambda: own_mounts(spec))
    send_with_fds(go, "\n".join(mounts).encode(), list(mounts.values()))
    for fd in mounts.values():
        os.close(fd)


def in_a_thread(call: Callable[[], T]) -> T:
    """The result of a call in another thread, or its OSError. EAGAIN: there may be no thread more.

    A bare thread: each page of Python's that is touched here is copied first, since the launcher has it too.
    """
    done: list[T] = []
    failed: list[OSError] = []
    over = _thread.allocate_lock()
    over.acquire()

    def run() -> None:
        try:
            done.append(call())
        except OSError as failure:
            failed.append(failure)
        finally:
            over.release()

    try:
        _thread.start_new_thread(run, ())
    except RuntimeError as refused:  # by whatever errno: pthread_create(3) has only EAGAIN for what is full
        raise OSError(errno.EAGAIN, str(refused), "a thread of init") from None
    over.acquire()
    if failed:
        raise failed[0]
    return done[0]


def enter_attached_root(go: socket.socket) -> int:
    """Wait for GO, which brings the attached root; the fd of an own copy of that root, attached on it.

    The root comes as an fd, since not every directory on the way to it is open to the container's uid. unshare(2)
    moves the current directory along into the new mount namespace, where every flag of the copy is locked.
    """
    message, fds = recv_with_fds(go)
    with fds:
        if message != b"GO":
            os._exit(1)
        attached = fds.take()
        os.fchdir(attached)
        os.close(attached)
    unshare(CLONE_NEWNS)
    root = open_tree(AT_FDCWD, ".", OPEN_TREE_CLONE | AT_RECURSIVE)
    move_mount(root, AT_FDCWD, ".")
    return root


def own_mounts(spec: ContainerSpec) -> dict[str, int]:
    """Detached mounts of what belongs to the container's own namespaces, by where they go below the root."""
    unshare(CLONE_NEWNS)
    mounts = {target: new_mount(fstype, options, flags) for fstype, target, options, flags in _OWN_MOUNTS}
    return {**mounts, **sys_pieces(), **cgroup_mounts(spec)}


def make_it_the_root(root: int) -> None:
    """pivot_root(2) to the mount of this fd; everything else is detached."""
    os.fchdir(root)
    os.close(root)
    pivot_root(".", ".")
    umount2(".", MNT_DETACH)
    os.chdir("/")


def sys_pieces() -> dict[str, int]:
    """Of this network namespace's sysfs the pieces that tell nothing of the host's devices.

    sysfs is attached for a moment over the host's /sys, in this thread's own mount namespace.
    """
    whole = new_mount("sysfs", {}, _SAFE | MOUNT_ATTR_RDONLY)
    move_mount(whole, AT_FDCWD, "/sys")
    os.close(whole)
    pieces = {}
    for piece in SYS_PIECES:
        with suppress(FileNotFoundError):  # no NUMA on this machine
            pieces[f"sys/{piece}"] = open_tree(AT_FDCWD, f"/sys/{piece}", OPEN_TREE_CLONE)
    return pieces


def cgroup_mounts(spec: ContainerSpec) -> dict[str, int]:
    """The container's own part of each hierarchy, as its cgroup namespace shows it: to be read, unless delegated."""
    attributes, top = _SAFE | MOUNT_ATTR_RDONLY, f"sys/{SYS_CGROUP}"
    if not spec.cgroups.v1:
        return {top: new_mount("cgroup2", {}, _SAFE if spec.delegate else attributes)}
    mounts = {
        f"{top}/{hierarchy_directory(name)}": new_mount("cgroup", cgroup_options(name), attributes)
        for name in spec.cgroups.v1
    }
    if spec.cgroups.v2 is not None:
        mounts[f"{top}/unified"] = new_mount("cgroup2", {}, attributes)
    return mounts


def cgroup_options(hierarchy: str) -> dict[str, str | None]:
    """The mount options of a hierarchy of version 1: its controllers, or the name of one that has none."""
    if "=" in hierarchy:
        return {"none": None, **dict([hierarchy.split("=", 1)])}
    return dict.fromkeys(hierarchy.split(","))


def hierarchy_directory(hierarchy: str) -> str:
    """The directory of a version 1 hierarchy: `cpu,cpuacct`, or the name of one without controllers."""
    return hierarchy.removeprefix("name=")


def name_things(hostname: str) -> None:
    """The host's name, the loopback interface, and files that name look-ups need, where the image has none."""
    socket.sethostname(hostname)
    set_link_up("lo")
    with _what_is_there_stays():
        os.mkdir("/etc", 0o755)
    for path, text in _DEFAULT_FILES:
        with _what_is_there_stays():
            _write_if_missing(path, text.format(hostname=hostname))
    with _what_is_there_stays():
        _add_own_name(hostname)


@contextmanager
def _what_is_there_stays() -> Iterator[None]:
    try:
        yield
    except OSError as failure:
        if failure.errno not in _LEFT_AS_IT_IS:
            raise


def _write_if_missing(path: str, text: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(f"/{path}", flags, 0o644)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _add_own_name(hostname: str) -> None:
    flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    hosts = os.open("/etc/hosts", flags)
    try:
        text = os.read(hosts, 64 * 1024)
        if hostname.encode() not in text.split():
            os.write(hosts, (b"" if text.endswith(b"\n") or not text else b"\n") + own_name(hostname))
    finally:
        os.close(hosts)


def own_name(hostname: str) -> bytes:
    """The line of /etc/hosts."""
    return f"127.0.1.1\t{hostname}\n".encode()


def clean_up_process(spec: ContainerSpec) -> None:
    """Nothing of the launcher's is inherited: keyring, limits, standard files. Its signals are default in any child."""
    join_new_session_keyring()
    for number, (soft, hard) in spec.rlimits.items():
        limit(int(number), soft, hard)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for fd in (0, 1, 2):
        os.dup2(null, fd)


def limit(number: int, soft: int, hard: int) -> None:
    """setrlimit(2); a hard limit above our own cannot be had here: then it is our own."""
    most = resource.getrlimit(number)[1]
    hard = least(hard, most)
    resource.setrlimit(number, (least(soft, hard), hard))


def least(one: int, other: int) -> int:
    """The lower of two limits, of which either may be none."""
    limits = [value for value in (one, other) if value != resource.RLIM_INFINITY]
    return min(limits, default=resource.RLIM_INFINITY)


def default_signals(numbers: Iterable[int]) -> None:
    """These dispositions default, nothing blocked: what is ignored or blocked, execve keeps."""
    for number in numbers:
        with suppress(OSError, ValueError):  # SIGKILL, SIGSTOP, and what libc keeps for itself
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
