"""The files of encrypted volumes: made and grown with the key at hand, and which of their areas are encrypted.

    filesystems   table │ LUKS2 header, ext4 │ LUKS2 header, xfs │ table        each partition's contents
    whole         LUKS2 header │ table, ext4, xfs, table                        all of the file, the table inside

    make   unnamed file -> [table] -> each area: header made, its process shows the decrypted data -> [table]
           -> mkfs on a loop device there (job) -> process ended -> synced, named
    grow   copy -> [table] -> last area opened -> [table] -> last filesystem grown (job) -> process ended -> renamed

mkfs is run on the decrypted device, and no template copied: what was never written is noise there, not zeros. Files
of volumes that are not encrypted are made in `sysproc.volume_files`; the processes are started in `sysproc.unlocking`.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sysproc.errors import FailedPrecondition
from sysproc.failpoints import failpoint
from sysproc.images import FORMAT_TIMEOUT_S, full_disk_as_enospc, job_failures
from sysproc.isolation.launcher_client import Launcher
from sysproc.linux.memory import SecretBuffer
from sysproc.sparse import copy_sparse
from sysproc.storage.decrypted.opening import Decrypted
from sysproc.storage.luks.edit import DATA_OFFSET
from sysproc.storage.luks.region import Region
from sysproc.storage.luks.volume import open_volume
from sysproc.storage.volumes import FILESYSTEMS, NONE, WHOLE, Filesystem, NewVolume, VolumeRow
from sysproc.storage.vsf.clone import (
    disk_full_as_domain_error,
    fresh_vsf,
    give_name,
    grow_table,
    sync_directory,
    unnamed_file,
)
from sysproc.storage.vsf.gpt import has_gpt, read_gpt, write_gpt
from sysproc.storage.vsf.layout import Wanted, plan
from sysproc.to_end import to_end
from sysproc.unlocking import Unlocking

# In front of what is encrypted, in each area.
HEADER_BYTES = DATA_OFFSET
GROW_TIMEOUT_S = 3600.0


class EncryptedFiles:
    """One instance, used from one event loop. directory: where the files of volumes are."""

    def __init__(self, directory: Path, launcher: Launcher, unlocking: Unlocking) -> None:
        self._directory, self._launcher, self._unlocking = directory, launcher, unlocking

    async def make(self, row: VolumeRow | NewVolume, secret: SecretBuffer, target: Path) -> None:
        """The file of a new volume. Raises ResourceExhausted, FailedPrecondition (a tool); nothing is left then."""
        with unnamed_file(self._directory) as fd:
            if row.encryption == WHOLE:
                await self._make_whole(fd, row, secret)
            else:
                await self._make_each(fd, row, secret)
            failpoint("volumes.encrypt.after_format")
            await to_end(named, fd, target)

    async def _make_each(self, fd: int, row: VolumeRow | NewVolume, secret: SecretBuffer) -> None:
        gpt = plan(_wanted(row), row.size_bytes)
        with disk_full_as_domain_error(self._directory / "volume"):
            await to_end(fresh_vsf, fd, gpt)
        for partition, filesystem in zip(gpt.partitions, row.filesystems, strict=True):
            area = Region(fd, partition.offset_bytes, partition.size_bytes)
            async with self._unlocking.made(area, secret, filesystem.label) as file:
                await self._format(file, 0, file.size, filesystem)

    async def _make_whole(self, fd: int, row: VolumeRow | NewVolume, secret: SecretBuffer) -> None:
        with disk_full_as_domain_error(self._directory / "volume"):
            os.ftruncate(fd, row.size_bytes)
        gpt = plan(_wanted(row), row.size_bytes - HEADER_BYTES)
        async with self._unlocking.made(Region.whole(fd), secret, "") as file:
            await to_end(write_gpt, file.fd, gpt)
            for partition, filesystem in zip(gpt.partitions, row.filesystems, strict=True):
                await self._format(file, partition.offset_bytes, partition.size_bytes, filesystem)

    async def _format(self, file: Decrypted, offset: int, size: int, filesystem: Filesystem) -> None:
        values = {
            "offset": offset,
            "size": size,
            "block_size": file.sector_size,
            "type": filesystem.type,
            "label": filesystem.label,
            "uuid": filesystem.uuid,
        }
        with job_failures(f"format {filesystem.type}"), full_disk_as_enospc(self._directory):
            await self._launcher.run_job("format_device", values, [file.fd], timeout_s=FORMAT_TIMEOUT_S)

    async def grow(self, fd: int, row: VolumeRow, secret: SecretBuffer, source: Path) -> int:
        """Make an empty file a larger copy of a volume; the size of its last filesystem then.

        Raises ResourceExhausted, FailedPrecondition (a filesystem that is damaged), WrongKey.
        """
        area = await to_end(larger_copy, source, fd, row)
        failpoint("volumes.encrypt.after_copy")
        async with self._unlocking.opened(area, secret) as file:
            offset, size = await to_end(grow_inside, file, row.encryption)
            place = {"offset": offset, "size": size}
            values = {**place, "block_size": file.sector_size, "type": row.filesystems[-1].type}
            with job_failures("grow the volume"), full_disk_as_enospc(self._directory):
                await self._launcher.run_job("grow", values, [file.fd], timeout_s=GROW_TIMEOUT_S)
        return size if row.encryption == WHOLE else area.size

    @staticmethod
    def key_slots(row: VolumeRow, path: Path) -> Sequence[Sequence[int]]:
        """The numbers of the keys that open each of its filesystems. Blocks."""
        if row.encryption == NONE:
            return [()] * len(row.filesystems)
        with opened(path, os.O_RDONLY) as fd:
            found = [sorted(open_volume(area).metadata.slots) for area in keyed_areas(fd, row)]
        if row.encryption == WHOLE:
            return found * len(row.filesystems)
        each = iter(found)
        return [() if one.plain else next(each) for one in row.filesystems]


def _wanted(row: VolumeRow | NewVolume) -> list[Wanted]:
    return [Wanted(one.label, one.size_bytes) for one in row.filesystems]


def areas(fd: int, encryption: str) -> list[Region]:
    """What is encrypted in a volume's file: all of it, or each of its partitions. Blocks."""
    if encryption == WHOLE:
        return [Region.whole(fd)]
    return [Region(fd, one.offset_bytes, one.size_bytes) for one in read_gpt(fd).partitions]


def keyed_areas(fd: int, row: VolumeRow) -> list[Region]:
    """The same of one volume, without the partitions that are not encrypted. Blocks."""
    every = areas(fd, row.encryption)
    if row.encryption == WHOLE:
        return every
    return [area for area, one in zip(every, row.filesystems, strict=True) if not one.plain]


def larger_copy(source: Path, fd: int, row: VolumeRow) -> Region:
    """Copy a volume into an empty file of the recorded size; the area there that has the last filesystem. Blocks."""
    with opened(source, os.O_RDONLY) as source_fd, disk_full_as_domain_error(source):
        copy_sparse(source_fd, fd)
        if row.encryption == FILESYSTEMS:
            grow_table(fd, row.size_bytes)
        else:
            os.ftruncate(fd, row.size_bytes)
        return areas(fd, row.encryption)[-1]


def grow_inside(file: Decrypted, encryption: str) -> tuple[int, int]:
    """Where the last filesystem is in what is decrypted, and how large it can be: a table there is grown. Blocks."""
    if encryption != WHOLE or not has_gpt(file.fd):
        return 0, file.size
    gpt = read_gpt(file.fd).grown(file.size)
    write_gpt(file.fd, gpt)
    return gpt.partitions[-1].offset_bytes, gpt.partitions[-1].size_bytes


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """An fd of the file, for the block."""
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def named(fd: int, target: Path) -> None:
    """An unnamed file gets its name, once all of it is on the disk. Blocks."""
    with disk_full_as_domain_error(target):
        os.fdatasync(fd)
        failpoint("volumes.encrypt.before_link")
        give_name(fd, target)
        sync_directory(target.parent)


def must_have(secret: SecretBuffer | None, row: VolumeRow | NewVolume) -> SecretBuffer:
    """The secret that an encrypted volume is opened by. Raises FailedPrecondition if none was given."""
    if secret is None:
        raise FailedPrecondition(
            f"The volume {row.name} is encrypted, and locked.",
            resolution="Give its passphrase or key file.",
            reason="VOLUME_LOCKED",
            metadata={"volume": row.name},
        )
    return secret
