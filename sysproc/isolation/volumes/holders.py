"""Who still uses a filesystem of a volume: of these processes, whose mounts, files and programs are on it.

    mounts     in the mount namespace of each, so also in namespaces that processes inside have made for themselves
    files      open fds; working and root directories; programs and libraries that are mapped

A process may hold what no mount shows any more (a lazy umount): so fds are looked at one by one, by the filesystem's
device. What processes have in flight in sockets is not seen; that the device stays is (`sysproc.isolation.volumes`).
"""

import errno
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sysproc.isolation.volumes.mount_table import Mounted, mounts_of
from sysproc.linux.files import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2

# What a process that has just ended answers, or a kernel thread that has none of it.
_GONE = (errno.ENOENT, errno.ESRCH, errno.EINVAL, errno.EACCES)

# Of a container's mounts only these can be of a volume: its root cannot mount them from anything else.
FILESYSTEMS = frozenset({"ext4", "btrfs", "xfs", "erofs", "squashfs"})


@dataclass(frozen=True)
class Holder:
    """One use. pid: on the host; what: `mount`, `file`, `directory`, `program`; path: as the process sees it."""

    pid: int
    what: str
    path: str


def holders(pids: Iterable[int], devices: Collection[str]) -> Iterator[Holder]:
    """All uses by these processes of the filesystem with these devices ("major:minor"). Blocks.

    btrfs has one for its mounts and another for its files (`device_of_path`); others have one.

    A mount is told once for each mount namespace, by the first process in it.
    """
    seen: set[int] = set()
    for pid in pids:
        with _unless_gone():
            yield from _mounts(pid, devices, seen)
        with _unless_gone():
            yield from _files(pid, devices)
        with _unless_gone():
            yield from _programs(pid, devices)


def devices_of(pids: Iterable[int], sources: Collection[str]) -> frozenset[str]:
    """The devices ("major:minor") that mounts from these block devices have, where these processes are. Blocks."""
    seen, found = set[int](), set[str]()
    for pid in pids:
        with _unless_gone():
            namespace = os.stat(f"/proc/{pid}/ns/mnt").st_ino
            if namespace not in seen:
                seen.add(namespace)
                found |= {one.device for one in mounts_of(pid) if one.source in sources and one.fstype in FILESYSTEMS}
    return frozenset(found)


def _mounts(pid: int, devices: Collection[str], seen: set[int]) -> Iterator[Holder]:
    namespace = os.stat(f"/proc/{pid}/ns/mnt").st_ino
    if namespace in seen:
        return
    seen.add(namespace)
    for mounted in mounts_of(pid):
        if mounted.device in devices:
            yield Holder(pid, "mount", os.fsdecode(mounted.point))


def _files(pid: int, devices: Collection[str]) -> Iterator[Holder]:
    links = [("directory", f"/proc/{pid}/{name}") for name in ("cwd", "root")]
    links += [("file", f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]
    for what, link in links:
        with _unless_gone():
            if device_of_file(link) in devices:
                yield Holder(pid, what, os.readlink(link))


def _programs(pid: int, devices: Collection[str]) -> Iterator[Holder]:
    paths = set()
    for line in Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and _as_decimal(fields[3]) in devices:
            paths.add(fields[5])
    for path in sorted(paths):
        yield Holder(pid, "program", path)


def device_of_file(path: str) -> str:
    """The device of the filesystem that a file is on, as mountinfo writes it."""
    try:
        return _written(os.stat(path).st_dev)
    except OSError as failure:
        if failure.errno != errno.EIO:
            raise
    # An xfs that the kernel has shut down tells nothing of its files, and this of itself: its device (statfs(2)).
    return _written(os.statvfs(path).f_fsid)


def device_of_path(pid: int, mounted: Mounted) -> str:
    """The device that files on a mount have, in the namespace of a process; the mount's, if it is not to be seen.

    So it is with an xfs that the kernel has shut down: it has one device.
    """
    with ExitStack() as stack:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, root)
        try:
            point = openat2(root, mounted.point, os.O_PATH, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
            stack.callback(os.close, point)
            return _written(os.fstat(point).st_dev)
        except OSError as failure:
            if failure.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EAGAIN, errno.EIO):
                raise
            return mounted.device


def _written(device: int) -> str:
    return f"{os.major(device)}:{os.minor(device)}"


def _as_decimal(hexadecimal: str) -> str:
    major, _, minor = hexadecimal.partition(":")
    return f"{int(major, 16)}:{int(minor, 16)}"


@contextmanager
def _unless_gone() -> Iterator[None]:
    """The process, or its fd, may end while it is looked at."""
    try:
        yield
    except OSError as failure:
        if failure.errno not in _GONE:
            raise
