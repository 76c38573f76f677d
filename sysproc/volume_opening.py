"""From where a filesystem of a volume is mounted: a part of its file, or of what is decrypted of it.

    not encrypted            the partition
    encrypted, open          the device that there is: no secret is asked for, none is looked at
    encrypted, locked        opened with the secret; the device is made by the job that mounts, and keeps it open
    encrypted, broken        its process was killed: refused until it is unmounted everywhere
    imported, never open     opened with the secret, looked into, and recorded: what is in it is known then

The caller holds the volume's lock (`sysproc.volume_files`). The processes are started in `sysproc.unlocking`.
"""

import errno
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sysproc.encrypted_files import areas, must_have, opened
from sysproc.errors import FailedPrecondition
from sysproc.failpoints import failpoint
from sysproc.ids import to_hex
from sysproc.isolation.launcher_client import ChildFailed
from sysproc.isolation.volumes.decrypted_devices import found
from sysproc.isolation.volumes.devices import MARKS_AT, SHARED, Use
from sysproc.linux.memory import SecretBuffer
from sysproc.storage import volumes as recorded
from sysproc.storage.database import Database
from sysproc.storage.decrypted.opening import Manner
from sysproc.storage.volumes import FILESYSTEMS, LUKS, NONE, WHOLE, Filesystem, VolumeRow, encrypts
from sysproc.storage.vsf.disk import Part, read_disk
from sysproc.to_end import to_end
from sysproc.unlocking import Opened
from sysproc.volume_contents import inside_one, inside_whole
from sysproc.volume_devices import VolumeDevices, name_for
from sysproc.volume_files import VolumeFiles
from sysproc.volume_refusals import not_direct, not_shared


@dataclass(frozen=True)
class Source:
    """values: what the job is told of it; fds: the decrypted file, if it was opened just now."""

    values: Mapping[str, Any]
    fds: tuple[int, ...] = ()


class VolumeOpening:
    """One instance, used from one event loop."""

    def __init__(self, files: VolumeFiles, devices: VolumeDevices, database: Database) -> None:
        self._files, self._devices, self._database = files, devices, database
        # Is told of a volume that is open from now on, and given the pidfd of its process.
        self.on_opened: Callable[[VolumeRow, int], None] = lambda _, pidfd: os.close(pidfd)

    @asynccontextmanager
    async def known(
        self, row: VolumeRow, label: str, secret: SecretBuffer | None, use: Use
    ) -> AsyncIterator[tuple[VolumeRow, Opened | None]]:
        """The volume with what is in it, or in the filesystem of this label, recorded. Raises as `source`.

        If it had to be opened for that, it is open for the block, for `source`: a key takes its time once.
        """
        at = unknown_at(row, label)
        if at is None:
            yield row, None
            return
        decrypted = await self._open(row, at, must_have(secret, row), self._files.path(row), use)
        try:
            found = await to_end(looked_into, row, at, decrypted.file.fd)
            failpoint("volumes.known.before_record")
            yield await self._database.write(lambda c: recorded.set_filesystems(c, row.id, found)), decrypted
        finally:
            decrypted.close()

    @asynccontextmanager
    async def source(
        self, row: VolumeRow, at: int, secret: SecretBuffer | None, use: Use = SHARED, now: Opened | None = None
    ) -> AsyncIterator[Source]:
        """Of one filesystem of a volume, for the block; now: what `known` has opened.

        Raises WrongKey, FailedPrecondition (locked, broken, in use).
        """
        file = self._files.path(row)
        with unless_closed(row):
            if now is not None:
                yield await self._source_of(row, at, file, now)
                self.on_opened(row, os.dup(now.pidfd))
                return
            async with self._source(row, at, secret, file, use) as source:
                yield source

    @staticmethod
    async def _source_of(row: VolumeRow, at: int, file: Path, now: Opened) -> Source:
        return Source(await to_end(_decrypted, row, at, file, now), (now.file.fd,))

    @asynccontextmanager
    async def _source(
        self, row: VolumeRow, at: int, secret: SecretBuffer | None, file: Path, use: Use
    ) -> AsyncIterator[Source]:
        if not encrypts(row, at):
            yield Source(await to_end(_plain, file, at))
        elif await to_end(self._is_open, row, at, file):
            await to_end(self._check_use, row, at, use)
            yield Source(await to_end(_decrypted, row, at, file, None))
        else:
            decrypted = await self._open(row, at, must_have(secret, row), file, use)
            try:
                yield await self._source_of(row, at, file, decrypted)
                self.on_opened(row, os.dup(decrypted.pidfd))
            finally:
                decrypted.close()

    def _is_open(self, row: VolumeRow, at: int, file: Path) -> bool:
        wanted = name_for(row, file, at)
        present = [one for _, one in self._devices.decrypted([row]) if one.filesystem == wanted.filesystem]
        if present and self._devices.broken(row, present):
            raise broken(row)
        return bool(present)

    def _check_use(self, row: VolumeRow, at: int, use: Use) -> None:
        """Raise FailedPrecondition for what is open, if somebody has it alone or wants it; or if it is not direct.

        The filesystems in a whole one have devices of their own: there the job finds it out.
        """
        if row.encryption == FILESYSTEMS and (use.exclusive or self._devices.is_exclusive(row, at)):
            raise not_shared(row)
        if use.direct_io and not self._devices.is_direct(row, at):
            raise not_direct(row)

    async def _open(self, row: VolumeRow, at: int, secret: SecretBuffer, file: Path, use: Use) -> Opened:
        with opened(file, os.O_RDWR) as fd:
            every = await to_end(areas, fd, row.encryption)
            area = every[0 if row.encryption == WHOLE else at]
            alone = use.exclusive and row.encryption == FILESYSTEMS
            manner = Manner(MARKS_AT + area.offset if alone else None, use.direct_io)
            return await self._files.unlocking.open(area, secret, str(name_for(row, file, at)), manner)


def unknown_at(row: VolumeRow, label: str) -> int | None:
    """Which part of a volume that was imported has to be opened before it is known what is in it; None: none."""
    if row.encryption == NONE:
        return None
    labels, single = [one.label for one in row.filesystems], len(row.filesystems) == 1
    at = 0 if row.encryption == WHOLE or (single and not label) else labels.index(label) if label in labels else None
    return at if at is not None and row.filesystems[at].type == LUKS else None


def looked_into(row: VolumeRow, at: int, fd: int) -> Sequence[Filesystem]:
    """The filesystems of a volume, with what was found in the decrypted file of one part. Blocks."""
    if row.encryption == WHOLE:
        return inside_whole(fd)
    found = inside_one(fd, row.filesystems[at])
    return [*row.filesystems[:at], found, *row.filesystems[at + 1 :]]


def _plain(file: Path, at: int) -> Mapping[str, Any]:
    with opened(file, os.O_RDONLY) as fd:
        return _place(read_disk(fd)[at])


def _decrypted(row: VolumeRow, at: int, file: Path, now: Opened | None) -> Mapping[str, Any]:
    place = {"offset": 0, "size": 0}
    if row.encryption == WHOLE:
        place = _place(_table_inside(row, file, now)[at])
    size = 0 if now is None else now.file.sector_size
    which = {"volume": to_hex(row.id), "filesystem": at, "whole": row.encryption == WHOLE}
    return {**place, "encrypted": {**which, "block_size": size}}


def _table_inside(row: VolumeRow, file: Path, now: Opened | None) -> tuple[Part, ...]:
    """Of a volume that is encrypted as a whole: from the decrypted file, or the device that is over it."""
    if now is not None:
        return read_disk(now.file.fd)
    fd, _ = found(name_for(row, file, 0))
    try:
        return read_disk(fd)
    finally:
        os.close(fd)


def _place(partition: Part) -> dict[str, int]:
    return {"offset": partition.offset_bytes, "size": partition.size_bytes}


@contextmanager
def unless_closed(row: VolumeRow) -> Iterator[None]:
    """That the device was not there any more, here or in the job, in words for the caller."""
    try:
        yield
    except (OSError, ChildFailed) as failure:
        if failure.errno != errno.ENOKEY:
            raise
        raise closed(row) from failure


def closed(row: VolumeRow) -> FailedPrecondition:
    """Its last use has just ended."""
    return FailedPrecondition(
        f"The volume {row.name} was locked just now: nothing uses it any more.",
        resolution="Give its passphrase or key file.",
        reason="VOLUME_LOCKED",
        metadata={"volume": row.name},
    )


def broken(row: VolumeRow) -> FailedPrecondition:
    """What decrypts it was killed."""
    return FailedPrecondition(
        f"The volume {row.name} is broken: the process that decrypts it was killed.",
        resolution="Unmount it everywhere (`sysproc volume lock --force`), then mount it again with its secret:"
        " what was synced is there.",
        reason="VOLUME_BROKEN",
        metadata={"volume": row.name},
    )
