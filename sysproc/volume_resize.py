"""Volumes that change their size while they are in use, or become smaller: the steps on the file and in the kernel.

    in use     longer file -> table at its new end -> table at its beginning -> device -> filesystem (job)
    smaller    copy -> last filesystem shrunk in it (job) -> table -> shorter -> renamed over the file

Each step in use can be done again: what a crash has left half done is found by its table and its filesystem, and done
to the end at the next start (`Volumes.recover`). Growing what nobody uses is in `sysproc.volume_files`, what is
recorded in `sysproc.volumes`.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sysproc.errors import FailedPrecondition
from sysproc.failpoints import failpoint
from sysproc.images import full_disk_as_enospc, job_failures
from sysproc.isolation.launcher_client import ChildFailed, Launcher
from sysproc.isolation.volumes.shrink import SHRINK
from sysproc.linux.capabilities import CAP_SYS_RESOURCE, is_capable
from sysproc.linux.loop import loop_offset, loops_backed_by
from sysproc.sparse import copy_sparse
from sysproc.storage.volumes import NONE, VolumeRow, encrypts
from sysproc.storage.vsf.clone import disk_full_as_domain_error, grow_table_in_use, unnamed_file
from sysproc.storage.vsf.disk import read_disk
from sysproc.storage.vsf.gpt import ALIGNMENT, Partition, read_gpt, usable_end, write_gpt
from sysproc.storage.vsf.layout import aligned
from sysproc.to_end import to_end
from sysproc.volume_files import VolumeFiles, put_in_place

ONLINE_TIMEOUT_S, OFFLINE_TIMEOUT_S = 600.0, 3600.0
# So much at its end a filesystem may leave out: ext4 a last group that would hold nothing but its own tables.
_SLACK_BYTES = 8 << 20


class VolumeResize:
    """One instance, from one event loop; who calls it holds the volume's lock."""

    def __init__(self, files: VolumeFiles, launcher: Launcher) -> None:
        self._files, self._launcher = files, launcher

    # -- in use

    def is_mounted(self, row: VolumeRow) -> bool:
        """Whether a part of it is a disk of the kernel, as a mount makes one. Blocks."""
        devices = loops_backed_by(self._files.path(row))
        if not devices:
            return False
        places = {one.offset_bytes for one in self._partitions(row)}
        return all(loop_offset(device) in places for device in devices)

    def check_kernel(self, row: VolumeRow) -> None:
        """Raise FailedPrecondition for a filesystem that this host cannot grow while it is in use."""
        if row.filesystems[-1].type == "ext4" and not is_capable(CAP_SYS_RESOURCE):
            raise not_while_in_use(row)

    async def grow(self, row: VolumeRow) -> int:
        """Let it have the size that is recorded, whoever has it mounted; the size of its last filesystem then."""
        last = await to_end(self._grow_table, row)
        failpoint("volumes.grow.after_table")
        values = {
            "file": str(self._files.path(row)),
            "fstype": row.filesystems[-1].type,
            "offset": last.offset_bytes,
            "size": last.size_bytes,
        }
        with job_failures("grow the volume"), full_disk_as_enospc(self._files.path(row).parent), not_permitted(row):
            await self._launcher.run_job("grow_mounted", values, [], timeout_s=ONLINE_TIMEOUT_S)
        return last.size_bytes

    def _grow_table(self, row: VolumeRow) -> Partition:
        path = self._files.path(row)
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            with disk_full_as_domain_error(path):
                return grow_table_in_use(fd, row.size_bytes).partitions[-1]
        finally:
            os.close(fd)

    def is_filled(self, row: VolumeRow) -> bool:
        """Whether the last filesystem reaches to the end of a file of the recorded size. Blocks.

        Of one that is encrypted nothing can be seen: it does when its growth has ended.
        """
        if encrypts(row, -1):
            return row.grown_from is None
        fd = os.open(self._files.path(row), os.O_RDONLY | os.O_CLOEXEC)
        try:
            last, whole = read_disk(fd)[-1], read_gpt(fd).grown(row.size_bytes).partitions[-1].size_bytes
        finally:
            os.close(fd)
        covered = None if last.contents is None else last.contents.size_bytes
        return last.size_bytes == whole and (covered is None or whole - covered < _SLACK_BYTES)

    def _partitions(self, row: VolumeRow) -> tuple[Partition, ...]:
        fd = os.open(self._files.path(row), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return read_gpt(fd).partitions
        finally:
            os.close(fd)

    # -- smaller

    async def shrink(self, row: VolumeRow, size_bytes: int) -> int:
        """Let the file be so small; the size of its last filesystem then.

        Raises FailedPrecondition (what is in it needs more; its type cannot), ResourceExhausted: it is as it was then.
        """
        kind, path = row.filesystems[-1].type, self._files.path(row)
        if row.encryption != NONE:
            raise never_smaller(row, "that of encrypted ones is not implemented")
        if kind not in SHRINK:
            raise never_smaller(row, f"a filesystem of type {kind} cannot")
        with unnamed_file(path.parent) as fd:
            last, size = await to_end(copy_for_shrinking, path, fd, size_bytes)
            if size <= 0:
                raise holds_more(row, size_bytes, row.size_bytes - last.size_bytes + ALIGNMENT)
            values = {"type": kind, "offset": last.offset_bytes, "size": last.size_bytes, "to": size}
            with job_failures("shrink the volume"), full_disk_as_enospc(path.parent):
                told = await self._launcher.run_job("shrink", values, [fd], timeout_s=OFFLINE_TIMEOUT_S)
            if told["least"]:
                raise holds_more(row, size_bytes, row.size_bytes - last.size_bytes + told["least"])
            failpoint("volumes.shrink.after_job")
            await to_end(cut, fd, size_bytes)
            await to_end(put_in_place, fd, path)
        return size

    def shrunk(self, row: VolumeRow) -> tuple[int, int] | None:
        """The size of a file that is smaller than recorded, and of its last filesystem; None: it is not. Blocks."""
        try:
            fd = os.open(self._files.path(row), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            size = os.fstat(fd).st_size
            return (size, read_gpt(fd).partitions[-1].size_bytes) if size < row.size_bytes else None
        finally:
            os.close(fd)


def copy_for_shrinking(source: Path, fd: int, size_bytes: int) -> tuple[Partition, int]:
    """Copy a volume into an empty file: its last partition, and what that would be in a file of this size; blocks."""
    source_fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with disk_full_as_domain_error(source):
            copy_sparse(source_fd, fd)
        last = read_gpt(fd).partitions[-1]
        return last, usable_end(size_bytes) - last.offset_bytes
    finally:
        os.close(source_fd)


def cut(fd: int, size_bytes: int) -> None:
    """Let the file end where its last partition, now smaller, does; blocks."""
    gpt = read_gpt(fd).grown(size_bytes)
    os.ftruncate(fd, size_bytes)
    write_gpt(fd, gpt)


def never_smaller(row: VolumeRow, why: str) -> FailedPrecondition:
    """Its filesystem cannot be shrunk by anybody, or not by us."""
    return FailedPrecondition(
        f"The volume {row.name} cannot become smaller: {why}.",
        resolution="Create a smaller volume, and copy what is in this one.",
        reason="CANNOT_SHRINK",
        metadata={"volume": row.name},
    )


def holds_more(row: VolumeRow, size_bytes: int, least_bytes: int) -> FailedPrecondition:
    """What is in it does not fit."""
    least = aligned(least_bytes)
    return FailedPrecondition(
        f"The volume {row.name} cannot become one of {size_bytes} bytes: what is in it needs {least} at least.",
        resolution="Delete something in it, or ask for more.",
        reason="VOLUME_TOO_FULL",
        metadata={"volume": row.name, "least_bytes": str(least)},
    )


def not_while_in_use(row: VolumeRow) -> FailedPrecondition:
    """The host's kernel does not do it."""
    return FailedPrecondition(
        f"The volume {row.name} is in use, and here a mounted ext4 cannot be grown.",
        details="The kernel wants CAP_SYS_RESOURCE for it, which the service does not have on this host.",
        resolution="Unmount it everywhere, then grow it; btrfs and xfs grow while they are mounted.",
        reason="VOLUME_IN_USE",
        metadata={"volume": row.name},
    )


@contextmanager
def not_permitted(row: VolumeRow) -> Iterator[None]:
    """What the kernel refuses after all, in the same words."""
    try:
        yield
    except ChildFailed as failure:
        if failure.errno not in (errno.EPERM, errno.EBUSY):
            raise
        raise not_while_in_use(row) from failure
