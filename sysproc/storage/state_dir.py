"""The state directory: which file is where, and that one daemon only uses it.

<state>/lock                     flock'd by the daemon; holds its pid
<state>/sysproc.db               the hierarchy (`sysproc.storage.database`)
<state>/images/<digest>.vsf      contents of images
<state>/templates/<digest>-<size>.vsf   roots ready to be cloned
<state>/templates/<size>.ext4    filesystems ready to be cloned
<state>/volumes/<id>.vsf         volumes
<state>/containers/<id>/root.vsf        a container's root
<state>/containers/<id>/init.status     how its init ended (written by the keeper)
<state>/containers/<id>/execs/<exec id>/…   output, input and status of processes
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sysproc.errors import FailedPrecondition, ResourceExhausted
from sysproc.ids import is_hex_id


@dataclass(frozen=True)
class ContainerDirectory:
    """The files of one container."""

    path: Path

    @property
    def root(self) -> Path:
        """The VSF that holds its root filesystem."""
        return self.path / "root.vsf"

    @property
    def raw(self) -> Path:
        """There, if it may have raw disks."""
        return self.path / "raw"

    @property
    def status(self) -> Path:
        """How its init ended."""
        return self.path / "init.status"

    @property
    def execs(self) -> Path:
        """The directory with one directory for each process that was started in it."""
        return self.path / "execs"


class StateDir:
    """The layout of one state directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database, self.images, self.templates = path / "sysproc.db", path / "images", path / "templates"
        self.containers, self.volumes = path / "containers", path / "volumes"

    def make(self) -> None:
        """Make what is missing; for root only."""
        for directory in (self.path, self.images, self.templates, self.containers, self.volumes):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o700)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory for this process. Raises FailedPrecondition naming the process that has it."""
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as failure:
                if failure.errno != errno.EWOULDBLOCK:
                    raise
                raise in_use(self.path, os.pread(fd, 20, 0).decode(errors="replace").strip()) from None
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(fd)

    def check_free(self, wanted_bytes: int) -> None:
        """Raise ResourceExhausted where less than this is free on the disk.

        What others were promised is not counted: files are sparse, and how far the disk is promised is up to the
        host, which can limit whole subtrees.
        """
        disk = os.statvfs(self.path)
        free = disk.f_bavail * disk.f_frsize
        if wanted_bytes > free:
            raise disk_too_small(wanted_bytes, free)

    def container(self, container_id: str) -> ContainerDirectory:
        """The files of a container, by its id of 16 hex digits."""
        return ContainerDirectory(self.containers / container_id)

    def make_container(self, container_id: str) -> ContainerDirectory:
        """Make the directory of a new container."""
        directory = self.container(container_id)
        directory.path.mkdir(mode=0o700)
        directory.execs.mkdir(mode=0o700)
        return directory

    def remove_container(self, container_id: str) -> None:
        """Remove all files of a container; nothing happens if there are none."""
        directory = f"{self.containers}/{container_id}"
        try:
            remove_known(directory)
        except FileNotFoundError:
            return
        except OSError as failure:
            if failure.errno != errno.ENOTEMPTY:
                raise
            shutil.rmtree(directory)

    def container_names(self) -> set[str]:
        """The ids of containers that have files here."""
        return {entry.name for entry in self.containers.iterdir() if is_hex_id(entry.name)}

    def volume(self, volume_id: str) -> Path:
        """The file of a volume, by its id of 16 hex digits."""
        return self.volumes / f"{volume_id}.vsf"


def disk_too_small(wanted_bytes: int, free_bytes: int) -> ResourceExhausted:
    """The error for a file that could never be filled as things are."""
    return ResourceExhausted(
        "The host's disk has no room for a file of this size.",
        details=f"{wanted_bytes} bytes were asked for, {free_bytes} are free.",
        resolution="Ask for a smaller one (`--size`), free some space, or promise it (`--overcommit`).",
        reason="DISK_TOO_SMALL",
        metadata={"wanted_bytes": str(wanted_bytes), "free_bytes": str(free_bytes)},
    )


def remove_known(directory: str) -> None:
    """What each container has, without looking for more. OSError(ENOTEMPTY): processes have left something."""
    for name in ("root.vsf", "init.status"):
        with suppress(FileNotFoundError):
            os.unlink(f"{directory}/{name}")
    with suppress(FileNotFoundError):
        os.rmdir(f"{directory}/execs")
    os.rmdir(directory)


def in_use(path: Path, pid: str) -> FailedPrecondition:
    """The error for a second daemon."""
    return FailedPrecondition(
        f"The state directory {path} is used by another sysprocd" + (f" (pid {pid})." if pid else "."),
        resolution="Stop that one, or give this one a --state-dir of its own.",
        reason="STATE_DIR_IN_USE",
        metadata={"path": str(path), "pid": pid},
    )
