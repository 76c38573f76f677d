"""A filesystem's part of a volume as raw blocks: its loop device, and its node in a container's /dev.

The device has the part's lock, as one that is mounted has (`sysproc.isolation.volumes.devices`): so the two exclude
each other. It stays until it is cleared; for whom it is stands in its name (`lo_file_name`), which the kernel keeps.
Which containers may open it is set in `sysproc.isolation.cgroups`; who asks, and when it goes, in `sysproc.volume_raw`.
"""

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sysproc.isolation.volumes.attach import pid_of
from sysproc.linux.device_mapper import is_device_path
from sysproc.linux.files import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, f_ofd_setlk, openat2
from sysproc.linux.loop import LO_FLAGS_READ_ONLY, LOOP_CLR_FD, loop_configure, loop_name, loops_by_file

DIRECTORY = "vsf"
_NAME = re.compile(r"sysproc-raw:([0-9a-f]{16}):(.+)")
_HOW = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
_GONE = (errno.ENOENT, errno.ENXIO, errno.ENODEV)


@dataclass(frozen=True)
class Raw:
    """One device. container: its id in hex; file: of the volume; label: of the filesystem."""

    path: str
    file: Path
    container: str
    label: str

    @property
    def numbers(self) -> tuple[int, int]:
        """Major and minor."""
        found = os.stat(self.path).st_rdev
        return os.major(found), os.minor(found)


@contextmanager
def locked_part(file: Path, offset: int, size: int) -> Iterator[int]:
    """The file, open, with the part locked for whoever gets this fd. OSError(EBUSY): somebody has it."""
    fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        try:
            f_ofd_setlk(fd, offset, size)
        except OSError as failure:
            if failure.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise OSError(errno.EBUSY, "somebody has it", file.name) from None
        yield fd
    finally:
        os.close(fd)


def make_device(fd: int, offset: int, size: int, container: str, label: str, *, read_only: bool) -> str:
    """The device over a part that is locked; its path. It stays until it is cleared."""
    flags = LO_FLAGS_READ_ONLY if read_only else 0
    name = f"sysproc-raw:{container}:{label}"
    device_fd, path = loop_configure(fd, offset=offset, size=size, flags=flags, name=name)
    os.close(device_fd)
    return path


def raw_devices(directory: Path) -> list[Raw]:
    """All that there are on files of this directory. Blocks."""
    found = []
    for backing, paths in loops_by_file().items():
        file = Path(backing)
        if file.parent == directory:
            found += [one for path in paths if (one := raw_at(path, file)) is not None]
    return found


def raw_at(path: str, file: Path) -> Raw | None:
    """The device at this path, if it is one for raw blocks."""
    if is_device_path(path):
        return None
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as failure:
        if failure.errno not in _GONE:
            raise
        return None
    try:
        return _named(path, file, fd)
    finally:
        os.close(fd)


def _named(path: str, file: Path, fd: int) -> Raw | None:
    try:
        name = _NAME.fullmatch(loop_name(fd))
    except OSError as failure:
        if failure.errno not in _GONE:
            raise
        return None
    return None if name is None else Raw(path, file, name[1], name[2])


def clear(raw: Raw) -> None:
    """LOOP_CLR_FD: the device goes, at once or with the last one that has it open; nothing if another's by now."""
    try:
        fd = os.open(raw.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as failure:
        if failure.errno not in _GONE:
            raise
        return
    try:
        if _named(raw.path, raw.file, fd) == raw:
            fcntl.ioctl(fd, LOOP_CLR_FD)
    finally:
        os.close(fd)


# -- the node


@contextmanager
def dev_of(init_pidfd: int) -> Iterator[int]:
    """The container's /dev as we made it. OSError(ENXIO) if its root has put something else there."""
    root = os.open(f"/proc/{pid_of(init_pidfd)}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        pid_of(init_pidfd)  # still the same process: so the root was its own
        dev = openat2(root, "dev", os.O_RDONLY | os.O_DIRECTORY, resolve=_HOW)
    finally:
        os.close(root)
    try:
        null = os.stat("null", dir_fd=dev, follow_symlinks=False)
        if not stat.S_ISCHR(null.st_mode) or null.st_rdev != os.makedev(1, 3):
            raise OSError(errno.ENXIO, "is not the one that it was given", "/dev")
        yield dev
    finally:
        os.close(dev)


@contextmanager
def directory_in(dev: int) -> Iterator[int]:
    """Its directory of volumes, made if it is missing: the host's, so that nobody inside puts something else there."""
    with suppress(FileExistsError):
        os.mkdir(DIRECTORY, dir_fd=dev)
    fd = openat2(dev, DIRECTORY, os.O_RDONLY | os.O_DIRECTORY, resolve=_HOW)
    try:
        if os.fstat(fd).st_uid == 0:  # ours, and made under the service's umask
            os.fchmod(fd, 0o755)
        yield fd
    finally:
        os.close(fd)


def put_node(init_pidfd: int, name: str, numbers: tuple[int, int], owner: int) -> None:
    """A block device /dev/vsf/NAME in the container, owned by this uid of the host."""
    with dev_of(init_pidfd) as dev, directory_in(dev) as directory:
        remove_from(directory, name)
        os.mknod(name, stat.S_IFBLK | 0o600, os.makedev(*numbers), dir_fd=directory)
        os.chown(name, owner, owner, dir_fd=directory, follow_symlinks=False)


def take_node(init_pidfd: int, name: str) -> None:
    """Remove it; nothing happens if it is not there."""
    with dev_of(init_pidfd) as dev, directory_in(dev) as directory:
        remove_from(directory, name)


def remove_from(directory: int, name: str) -> None:
    """Unlink, if it is there."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return


# -- who has it


def users_of(pids: Sequence[int], numbers: tuple[int, int]) -> Iterator[tuple[int, str]]:
    """Those of these processes that have the device open or mapped, and where. Blocks."""
    wanted = os.makedev(*numbers)
    for pid in pids:
        for place in ("fd", "map_files"):
            yield from ((pid, path) for path in _held(f"/proc/{pid}/{place}", wanted))


def _held(directory: str, wanted: int) -> Iterator[str]:
    try:
        names = os.listdir(directory)
    except OSError as failure:
        if failure.errno not in (errno.ENOENT, errno.ESRCH, errno.EACCES):
            raise
        return
    for name in names:
        try:
            found = os.stat(f"{directory}/{name}")
            if stat.S_ISBLK(found.st_mode) and found.st_rdev == wanted:
                yield os.readlink(f"{directory}/{name}")
        except OSError as failure:
            if failure.errno not in (errno.ENOENT, errno.ESRCH, errno.EACCES):
                raise
