"""What of the kernel is used where it can be, how that is found out, and what is done without it.

Each probe asks the kernel itself, by a call that changes nothing: ENOSYS and its like are "no", every other answer is
"yes". The same table is in docs/ARCHITECTURE.md; a test holds the two together. What a container needs in any case
(Linux 5.12 and namespaces) has no fall-back here: there it says so.
"""

import errno
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from sysproc.isolation.cgroups import CgroupTree
from sysproc.linux import device_mapper
from sysproc.linux.files import ficlone
from sysproc.linux.libc import NR_CLONE3, NR_FSOPEN, NR_MOUNT_SETATTR, NR_OPENAT2, number_of, syscall
from sysproc.linux.loop import LOOP_CONTROL
from sysproc.linux.namespaces import CLONE_NEWTIME, clone3
from sysproc.linux.peers import PIDFD_INFO_CGROUPID, pidfd_get_info, so_peerpidfd
from sysproc.linux.pidfd import pidfd_getfd

NEEDED = "none: containers cannot be made"
_ABSENT = (errno.ENOSYS, errno.ENOTTY, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.ENODEV, errno.ENOENT, errno.EPERM)
_KEYCTL_NOTHING = 0xFFFF
_SQUASHFS_IDMAP = (6, 2)
_NO_FD = 0x7FFFFFFF


@dataclass(frozen=True)
class Where:
    """What the probes look at: the cgroups, and the filesystem of the state directory."""

    cgroups: CgroupTree
    state_dir: Path


@dataclass(frozen=True)
class Feature:
    """name: as the kernel's documentation has it; since: the first kernel; probe: raises OSError where it is not."""

    name: str
    since: str
    fallback: str
    probe: Callable[[Where], None]


@dataclass(frozen=True)
class Finding:
    """A feature on this host. detail: the kernel's words where it is not usable."""

    feature: Feature
    usable: bool
    detail: str


def find(where: Where) -> Iterator[Finding]:
    """Ask the kernel for each."""
    for feature in FEATURES:
        yield finding(feature, where)


def finding(feature: Feature, where: Where) -> Finding:
    """Ask the kernel for one."""
    try:
        feature.probe(where)
    except OSError as failure:
        if failure.errno in _ABSENT:
            return Finding(feature, False, f"{failure.filename or feature.name}: {failure.strerror}")
    return Finding(feature, True, "")


# -- probes


def _namespace(name: str) -> Callable[[Where], None]:
    def probe(_: Where) -> None:
        Path(f"/proc/self/ns/{name}").stat()

    return probe


def _clone3(_: Where) -> None:
    syscall("clone3", NR_CLONE3, 0, 0)


def _clone_newtime(_: Where) -> None:
    """No child is born: the cgroup is none, which the kernel sees after it has looked at the flags."""
    try:
        clone3(CLONE_NEWTIME, cgroup_fd=_NO_FD)
    except OSError as failure:
        if failure.errno == errno.EINVAL:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), "CLONE_NEWTIME") from None
        raise


def _mount_setattr(_: Where) -> None:
    syscall("mount_setattr", NR_MOUNT_SETATTR, -1, 0, 0, 0, 0)


def _ext4(_: Where) -> None:
    os.close(syscall("fsopen", NR_FSOPEN, b"ext4", 1, target="ext4"))


def _read_only_types(_: Where) -> None:
    """Both. Whether one takes an idmap no call tells without a device: squashfs does from 6.2 on, erofs before."""
    if tuple(int(part) for part in os.uname().release.split(".")[:2]) < _SQUASHFS_IDMAP:
        raise OSError(errno.ENODEV, "no idmap before Linux 6.2", "squashfs")
    for fstype in ("erofs", "squashfs"):
        os.close(syscall("fsopen", NR_FSOPEN, fstype.encode(), 1, target=fstype))


def _loop(_: Where) -> None:
    os.close(os.open(LOOP_CONTROL, os.O_RDWR | os.O_CLOEXEC))


def _dm_crypt(_: Where) -> None:
    if reason := device_mapper.why_not():
        raise OSError(errno.ENODEV, reason, "dm-crypt")


def _openat2(_: Where) -> None:
    syscall("openat2", NR_OPENAT2, -1, 0, 0, 0)


def _pidfd_getfd(_: Where) -> None:
    pidfd_getfd(-1, -1)


def _seccomp(_: Where) -> None:
    syscall("seccomp", number_of("seccomp"), 1, 0, 0, target="SECCOMP_SET_MODE_FILTER")


def _keyctl(_: Where) -> None:
    try:
        syscall("keyctl", number_of("keyctl"), _KEYCTL_NOTHING, 0, 0, 0, 0)
    except OSError as failure:
        if failure.errno != errno.EOPNOTSUPP:  # this operation is unknown, others are not
            raise


def _peerpidfd(_: Where) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        os.close(so_peerpidfd(ours))


def _pidfd_get_info(_: Where) -> None:
    pidfd = os.pidfd_open(os.getpid())
    try:
        pidfd_get_info(pidfd, PIDFD_INFO_CGROUPID)
    finally:
        os.close(pidfd)


def _clone_into_cgroup(where: Where) -> None:
    if where.cgroups.hierarchies.v2 is None:
        raise OSError(errno.ENODEV, "cgroups of version 2 are not mounted", "CLONE_INTO_CGROUP")


def _cgroup_kill(where: Where) -> None:
    _clone_into_cgroup(where)
    where.cgroups.launcher_procs[0].with_name("cgroup.kill").stat()


def _controller(name: str) -> Callable[[Where], None]:
    def probe(where: Where) -> None:
        if name not in {bound.name for bound in where.cgroups.controllers}:
            raise OSError(errno.ENODEV, "no hierarchy has this controller", name)

    return probe


def _ficlone(where: Where) -> None:
    with ExitStack() as stack:
        source, target = (stack.enter_context(tempfile.TemporaryFile(dir=where.state_dir)) for _ in range(2))
        source.write(b"probe")
        source.flush()
        ficlone(target.fileno(), source.fileno())


def _rwf_nowait(where: Where) -> None:
    with tempfile.TemporaryFile(dir=where.state_dir) as file:
        os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT)


FEATURES = (
    Feature("user namespaces", "3.8", NEEDED, _namespace("user")),
    Feature("cgroup namespaces", "4.6", NEEDED, _namespace("cgroup")),
    Feature("seccomp filters", "3.17", NEEDED, _seccomp),
    Feature("time namespaces", "6.1.23", "the host's is shared: locks of its file in /proc are seen", _clone_newtime),
    Feature("ext4, fsopen(2)", "5.2", NEEDED, _ext4),
    Feature("clone3(2)", "5.3", NEEDED, _clone3),
    Feature("pidfd_getfd(2)", "5.6", NEEDED, _pidfd_getfd),
    Feature("openat2(2)", "5.6", NEEDED, _openat2),
    Feature("loop devices, LOOP_CONFIGURE", "5.8", NEEDED, _loop),
    Feature("mount_setattr(2), MOUNT_ATTR_IDMAP", "5.12", NEEDED, _mount_setattr),
    Feature("memory controller", "2.6.25", "a limit of memory is refused", _controller("memory")),
    Feature("cpu controller", "3.2", "a limit of cpu is refused", _controller("cpu")),
    Feature("pids controller", "4.3", "a limit of pids is refused", _controller("pids")),
    Feature("keyrings", "2.6.10", "there are no keys that could be shared", _keyctl),
    Feature("CLONE_INTO_CGROUP", "5.7", "processes join by the `tasks` files of version 1", _clone_into_cgroup),
    Feature("cgroup.kill", "5.14", "freeze, SIGKILL to each, thaw, until none is left", _cgroup_kill),
    Feature("SO_PEERPIDFD", "6.5", "SO_PEERCRED and /proc; refused unless alive afterwards", _peerpidfd),
    Feature("PIDFD_GET_INFO", "6.13", "/proc/PID/cgroup; refused unless alive afterwards", _pidfd_get_info),
    Feature("erofs and squashfs, MOUNT_ATTR_IDMAP", "6.2", "volumes of that type cannot be mounted", _read_only_types),
    Feature("dm-crypt", "4.10", "encrypted volumes are decrypted by a process each", _dm_crypt),
    Feature("FICLONE", "4.5", "roots are copied without their holes", _ficlone),
    Feature("RWF_NOWAIT", "4.14", "output is read by a thread", _rwf_nowait),
)
