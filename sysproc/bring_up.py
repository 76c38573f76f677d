"""From a row and a root file to a running container, and back to holding one after a restart.

    uid range -> cgroups ─┬─▶ build (launcher) -> fds taken      each step undone if a later one fails
    root file, meanwhile ─┘
    row of a running container -> keeper found by pid and start time -> its fds taken

What is recorded, and when, is in `sysproc.containers`; taking a container apart is in `sysproc.take_apart`.
"""

import errno
import os
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from sysproc.errors import FailedPrecondition, Internal, LimitExceeded, ResourceExhausted, SysprocError
from sysproc.failpoints import failpoint
from sysproc.host import Host
from sysproc.ids import to_hex
from sysproc.isolation.builder_spec import ContainerSpec
from sysproc.isolation.cgroups import Cgroup, Limits
from sysproc.isolation.exec_spec import default_limits
from sysproc.isolation.launcher_client import Built, ChildFailed
from sysproc.isolation.root_mount import MOUNT_POINTS
from sysproc.isolation.uid_ranges import UidRange
from sysproc.linux.pidfd import pidfd_getfd, pidfd_open
from sysproc.linux.process import start_time
from sysproc.running import RunningContainer
from sysproc.states import State
from sysproc.storage import hierarchy
from sysproc.storage.hierarchy import ContainerRow
from sysproc.storage.vsf.gpt import Partition, read_gpt
from sysproc.to_end import to_end, undo_in_thread
from sysproc.undo import Undo

KEEPER_INIT_PIDFD = 4
KEEPER_LISTENER = 5
# Init, and its thread.
_PIDS_OF_INIT = 2
_ROOT_IS_FULL = (errno.ENOSPC, errno.EDQUOT)
_HOST_IS_FULL = (errno.ENOSPC, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EUSERS, errno.EDQUOT)


def limits_of(row: ContainerRow) -> Limits:
    """The limits that the kernel holds, as recorded."""
    return Limits(memory_bytes=row.memory_bytes, cpu_millis=row.cpu_millis, pids=row.pids)


async def bring_up(
    host: Host, row: ContainerRow, path: tuple[str, ...], root: Awaitable[object] | None = None
) -> tuple[RunningContainer, Mapping[str, int]]:
    """Make the container of this row run. root: what makes its root file at the same time; None: that is there.

    Returns what holds it, and the columns to record with its new state. Raises SysprocError; nothing is left then.
    """
    async with undo_in_thread() as undo:
        with ExitStack() as fds:
            made = await _prepare(host, row, path, root, undo, fds)
            built = await _build(host, row, path, made)
        undo.add("the processes", made.cgroup.kill)
        failpoint("containers.start.after_build")
        running = _hold(host, row, path, made.cgroup, made.uids.base, built)
        undo.pop_all()
    return running, _columns(made.uids, built)


@dataclass(frozen=True)
class Prepared:
    """What a container is built with; the fds are closed by whoever had it prepared."""

    uids: UidRange
    cgroup: Cgroup
    root_fd: int
    status_fd: int
    partition: Partition


async def _prepare(
    host: Host, row: ContainerRow, path: tuple[str, ...], root: Awaitable[object] | None, undo: Undo, fds: ExitStack
) -> Prepared:
    """The limits of those above hold for it also where they do not run and so have no cgroups yet."""
    async with host.limits_lock:
        lineage = host.database.look(lambda c: hierarchy.lineage(c, row.id))
        uids, cgroup = await to_end(_claim, host, row, path, [limits_of(one) for one in lineage], undo)
    if root is not None:
        await root
    directory = host.state_dir.container(to_hex(row.id))
    root_fd = os.open(directory.root, os.O_RDWR | os.O_CLOEXEC)
    fds.callback(os.close, root_fd)
    status_fd = os.open(directory.status, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    fds.callback(os.close, status_fd)
    return Prepared(uids, cgroup, root_fd, status_fd, read_gpt(root_fd).partitions[0])


def _claim(
    host: Host, row: ContainerRow, path: tuple[str, ...], limits: Sequence[Limits], undo: Undo
) -> tuple[UidRange, Cgroup]:
    """Uid range and cgroups; blocks. limits: from the top down to the container's own."""
    uids = host.uid_ranges.claim(host.owner(to_hex(row.id)))
    undo.add("the uid range", host.uid_ranges.release, uids)
    failpoint("containers.start.after_uids")
    owner = uids.base if row.delegate else None
    cgroup = host.cgroups.create(path, limits[-1], above=limits[:-1], owner=owner)
    undo.add("the cgroups", cgroup.remove)
    failpoint("containers.start.after_cgroup")
    return uids, cgroup


async def _build(host: Host, row: ContainerRow, path: tuple[str, ...], made: Prepared) -> Built:
    try:
        return await host.launcher.build(_spec(row, made), vsf_fd=made.root_fd, status_fd=made.status_fd)
    except ChildFailed as failure:
        if failure.errno == errno.EAGAIN and await to_end(_has_no_pids, host, path[:-1]):
            raise no_pids(row) from failure
        raise build_failed(row, failure) from failure


def _has_no_pids(host: Host, path: tuple[str, ...]) -> bool:
    """Whether one of these containers, from the top down, has as many processes as it may. Blocks."""
    for depth in range(1, len(path) + 1):
        cgroup = host.cgroups.open(path[:depth])
        most = cgroup.limits().pids if cgroup.exists else None
        if most is not None and most - (cgroup.stats().pids or 0) < _PIDS_OF_INIT:
            return True
    return False


def no_pids(row: ContainerRow) -> LimitExceeded:
    """Which one it is, and its figures, are told to nobody: it may be above the caller."""
    return LimitExceeded(
        f"Container {to_hex(row.id)} cannot start: a container above it has as many processes as it may.",
        details=f"While it starts, a container takes {_PIDS_OF_INIT} of what the limits of processes above it leave.",
        resolution="End what is not needed below that container, or raise its limit (`sysproc update --pids`).",
    )


def build_failed(row: ContainerRow, failure: ChildFailed) -> SysprocError:
    """The domain error for the call with which a build ended."""
    metadata = {"errno": errno.errorcode.get(failure.errno, str(failure.errno)), "target": failure.target}
    if failure.target.removeprefix("/") in MOUNT_POINTS:
        if failure.errno == errno.ENOTDIR:
            return root_unusable(row, failure, metadata)
        if failure.errno in _ROOT_IS_FULL:
            return root_full(row, failure, metadata)
    if failure.errno in _HOST_IS_FULL:
        return ResourceExhausted(
            "The host has no room for another container.",
            details=f"{failure}.",
            resolution="Destroy containers that are not needed, or raise the host's limits (/proc/sys/user, memory).",
            reason="HOST_FULL",
            metadata=metadata,
        )
    return Internal(
        f"Container {to_hex(row.id)} could not be built.",
        details=f"{failure}.",
        resolution="`sysproc info` shows what this kernel lacks; the daemon's log tells more.",
        reason="BUILD_FAILED",
        metadata=metadata,
    )


def root_unusable(row: ContainerRow, failure: ChildFailed, metadata: Mapping[str, str]) -> FailedPrecondition:
    """The error for a root with something else at a mount point: a new one is as its image, one that ran is not."""
    details = "A file or a link is there, on which nothing can be mounted."
    if row.state == State.CREATING:
        return FailedPrecondition(
            f"The image {row.image_name} cannot be the root of a container: it has no directory {failure.target}.",
            details=details,
            resolution="Import an image in which it is a directory, or is missing.",
            reason="IMAGE_UNUSABLE",
            metadata=metadata,
        )
    return FailedPrecondition(
        f"The root of container {to_hex(row.id)} cannot be started from: it has no directory {failure.target}.",
        details=details,
        resolution="Its root file on the host is a disk image that can be mounted and mended, or destroy it.",
        reason="ROOT_UNUSABLE",
        metadata=metadata,
    )


def root_full(row: ContainerRow, failure: ChildFailed, metadata: Mapping[str, str]) -> ResourceExhausted:
    """The error for a root in which a missing mount point cannot be made."""
    return ResourceExhausted(
        f"The root of container {to_hex(row.id)} is full: the directory {failure.target} cannot be made in it.",
        resolution="Create it with a larger root, or from an image that has the directory.",
        reason="ROOT_FULL",
        metadata=metadata,
    )


def _spec(row: ContainerRow, made: Prepared) -> ContainerSpec:
    return ContainerSpec(
        id=to_hex(row.id),
        hostname=row.hostname,
        uid_base=made.uids.base,
        uid_count=made.uids.size,
        cgroups=made.cgroup.procs_dirs,
        root_offset=made.partition.offset_bytes,
        root_size=made.partition.size_bytes,
        root_fstype="ext4",
        profile=row.profile,
        delegate=row.delegate,
        rlimits={str(number): limits for number, limits in default_limits().items()},
    )


def _columns(uids: UidRange, built: Built) -> Mapping[str, int]:
    return {
        "uid_base": uids.base,
        "init_pid": built.init_pid,
        "init_start": built.init_start,
        "keeper_pid": built.keeper_pid,
        "keeper_start": built.keeper_start,
        "userns_ino": built.userns_ino,
        "mntns_ino": built.mntns_ino,
    }


def _hold(
    host: Host, row: ContainerRow, path: tuple[str, ...], cgroup: Cgroup, uid_base: int, built: Built
) -> RunningContainer:
    keeper_pidfd = keeper_of(built.keeper_pid, built.keeper_start)
    if keeper_pidfd is None:
        raise Internal(
            f"Container {to_hex(row.id)} ended while it was started.",
            resolution="Try again; if it happens again, the daemon's log says what ended it.",
            reason="ENDED_AT_START",
        )
    return RunningContainer(
        id=row.id,
        path=path,
        init_pid=built.init_pid,
        init_pidfd=built.init_pidfd,
        keeper_pidfd=keeper_pidfd,
        listener_fd=built.listener_fd,
        cgroup=cgroup,
        uid_base=uid_base,
        profile=row.profile,
        api_users=row.api_users,
        delegate=row.delegate,
        environment=row.environment,
        exec_dir=host.state_dir.container(to_hex(row.id)).execs,
    )


def keeper_of(pid: int, recorded_start: int) -> int | None:
    """A pidfd of the keeper, or None if that process is not there any more (the pid may be another's by now)."""
    try:
        pidfd = pidfd_open(pid)
    except ProcessLookupError:
        return None
    if start_time(pid) == recorded_start:
        return pidfd
    os.close(pidfd)
    return None


def is_as_recorded(row: ContainerRow, init_pid: int) -> bool:
    """Whether init is in the namespaces that it was recorded with. One that has ended is in none: its keeper knows."""
    try:
        found = [os.stat(f"/proc/{init_pid}/ns/{name}").st_ino for name in ("user", "mnt")]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return found == [row.userns_ino, row.mntns_ino] or start_time(init_pid) != row.init_start


def adopt(host: Host, row: ContainerRow, path: tuple[str, ...]) -> RunningContainer | None:
    """Hold a container again that was started by an earlier daemon; None if its keeper is gone. Blocks."""
    if row.keeper_pid is None or row.keeper_start is None or row.init_pid is None or row.uid_base is None:
        return None
    keeper_pidfd = keeper_of(row.keeper_pid, row.keeper_start)
    if keeper_pidfd is None:
        return None
    with Undo() as undo:
        undo.add("the keeper's pidfd", os.close, keeper_pidfd)
        if not is_as_recorded(row, row.init_pid):
            return None
        init_pidfd = pidfd_getfd(keeper_pidfd, KEEPER_INIT_PIDFD)
        undo.add("init's pidfd", os.close, init_pidfd)
        listener_fd = pidfd_getfd(keeper_pidfd, KEEPER_LISTENER)
        undo.pop_all()
    return RunningContainer(
        id=row.id,
        path=path,
        init_pid=row.init_pid,
        init_pidfd=init_pidfd,
        keeper_pidfd=keeper_pidfd,
        listener_fd=listener_fd,
        cgroup=host.cgroups.open(path),
        uid_base=row.uid_base,
        profile=row.profile,
        api_users=row.api_users,
        delegate=row.delegate,
        environment=row.environment,
        exec_dir=host.state_dir.container(to_hex(row.id)).execs,
    )
