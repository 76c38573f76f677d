"""The files of copies of volumes: what a volume holds at one moment, as a volume of its own or as it is.

    copied    frozen and copied by a job; if that dies, what it has frozen is thawed
    make      copied -> new GUIDs -> new UUIDs of its filesystems -> <id>.vsf; not there, or whole

    type          another UUID                                    because of two of one UUID
    ext4          in its superblocks (one made by us)             -
    btrfs         in its superblocks                              a kernel takes one for the other
    xfs           by xfs_db, in a job                             a kernel mounts one of them only
    others        the one that it has                             -

An encrypted volume is copied byte by byte, and what is mounted of it is frozen as well. What a foreign volume holds is
copied so, too: no kernel and no tool of ours is given it. The job is `sysproc.isolation.volumes.copy`; who may have
which copy is decided in `sysproc.volume_copies`.
"""

import errno
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import structlog

from sysproc.errors import FailedPrecondition, Internal, InvalidArgument
from sysproc.failpoints import failpoint
from sysproc.images import full_disk_as_enospc, job_failures
from sysproc.isolation.launcher_client import ChildFailed, Launcher
from sysproc.linux.loop import loops_by_file
from sysproc.storage.state_dir import StateDir
from sysproc.storage.volumes import FOREIGN, NONE, Filesystem, VolumeRow, encrypts
from sysproc.storage.vsf import btrfs_uuid, ext4_uuid
from sysproc.storage.vsf.clone import new_file, sync_directory
from sysproc.storage.vsf.disk import Part, read_disk
from sysproc.storage.vsf.gpt import has_gpt, read_gpt, write_gpt
from sysproc.storage.vsf.probe import probe
from sysproc.to_end import to_end
from sysproc.volume_devices import VolumeDevices
from sysproc.volume_files import VolumeFiles, in_use
from sysproc.volume_opening import broken

log = structlog.get_logger()

# Of a filesystem that is mounted this is how long its writers may wait, at most.
COPY_TIMEOUT_S = 1800.0
RENEW_TIMEOUT_S = 600.0
THAW_TIMEOUT_S = 60.0
_DAMAGED = (errno.EINVAL, errno.EUCLEAN, errno.EBADMSG, errno.ENODEV, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class Renewal:
    """A filesystem of a copy that is to be known by another UUID."""

    part: Part
    type: str
    uuid: str


class VolumeCopyFiles:
    """One instance, used from one event loop."""

    def __init__(self, files: VolumeFiles, state_dir: StateDir, launcher: Launcher) -> None:
        self._files, self._directory, self._launcher = files, state_dir.volumes, launcher
        self._devices = VolumeDevices(state_dir)

    # -- plan

    def planned(self, source: VolumeRow) -> tuple[Filesystem, ...]:
        """The filesystems that a copy will have: those that can get another UUID have one. Blocks."""
        if source.encryption != NONE:
            return source.filesystems
        with self._opened(source) as fd:
            pairs = zip(read_disk(fd), source.filesystems, strict=True)
            return tuple(renamed(fd, source, part, filesystem) for part, filesystem in pairs)

    @contextmanager
    def _opened(self, row: VolumeRow) -> Iterator[int]:
        fd = os.open(self._files.path(row), os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)

    # -- copy

    async def make(self, source: VolumeRow, row: VolumeRow) -> float:
        """The file of the copy that was recorded; the moment that it shows. The lock of the source is held.

        Raises ResourceExhausted, FailedPrecondition (in use as a raw disk, a tool, damaged); nothing is left then.
        """
        target = self._files.path(row)
        with new_file(target) as fd:
            moment = await self.copied(source, fd)
            failpoint("volumes.copy.after_copy")
            await self._renew(fd, source, row)
            failpoint("volumes.copy.after_uuids")
        await to_end(sync_directory, target.parent)
        return moment

    async def copied(self, source: VolumeRow, fd: int) -> float:
        """What a volume holds at one moment, in an empty file; when that was. Errors as of `make`."""
        await to_end(self._check_whole, source)
        values = await to_end(self._values, source)
        try:
            with copy_failures(source), full_disk_as_enospc(self._directory):
                copied = await self._launcher.run_job("copy_volume", values, [fd], timeout_s=COPY_TIMEOUT_S)
        except BaseException:
            await self.thaw([source])
            raise
        return float(copied["moment"])

    def _check_whole(self, row: VolumeRow) -> None:
        """Raise FailedPrecondition where what decrypts it was killed: nothing of it can be frozen. Blocks."""
        present = [one for _, one in self._devices.decrypted([row])]
        if present and self._devices.broken(row, present):
            raise broken(row)

    def _values(self, row: VolumeRow) -> dict[str, Any]:
        inside = [] if row.encryption == NONE else [one.type for one in row.filesystems]
        plain = [at for at in range(len(row.filesystems)) if not encrypts(row, at)]
        if not plain:
            return {"file": str(self._files.path(row)), "parts": [], "inside": inside}
        with self._opened(row) as fd:
            parts = read_disk(fd)
        places = [(parts[at].offset_bytes, row.filesystems[at].type) for at in plain]
        return {"file": str(self._files.path(row)), "parts": places, "inside": inside}

    async def thaw(self, rows: Sequence[VolumeRow]) -> None:
        """Whatever is frozen of these volumes goes on; what nobody has mounted cannot be."""
        by_file = await to_end(loops_by_file)
        opened = {row.id for row, _ in await to_end(self._devices.decrypted, rows)}
        mounted = [row for row in rows if row.id in opened or str(self._files.path(row)) in by_file]
        if mounted:
            volumes = [await to_end(self._values, row) for row in mounted]
            done = await self._launcher.run_job("thaw", {"volumes": volumes}, timeout_s=THAW_TIMEOUT_S)
            for device, number in done["failed"]:
                log.warning("it is not known whether a filesystem is frozen", device=device, error=os.strerror(number))

    # -- other UUIDs

    async def _renew(self, fd: int, source: VolumeRow, row: VolumeRow) -> None:
        for one in await to_end(renew_table, fd, source, row):
            await self._renew_one(fd, one, row)

    async def _renew_one(self, fd: int, one: Renewal, row: VolumeRow) -> None:
        place = {"offset": one.part.offset_bytes, "size": one.part.size_bytes, "type": one.type, "uuid": one.uuid}
        with copy_failures(row), full_disk_as_enospc(self._directory):
            if one.type == "xfs":
                await self._launcher.run_job("renew_xfs", place, [fd], timeout_s=RENEW_TIMEOUT_S)
            if one.type == "ext4" and ext4_uuid.has_log(fd, one.part.offset_bytes):
                await self._launcher.run_job("replay", place, [fd], timeout_s=RENEW_TIMEOUT_S)
            await to_end(renew_superblocks, fd, one)
            if one.type == "btrfs" and btrfs_uuid.has_log(fd, one.part.offset_bytes):
                await self._launcher.run_job("replay", place, [fd], timeout_s=RENEW_TIMEOUT_S)
        await to_end(check_renewed, fd, one)


def renamed(fd: int, source: VolumeRow, part: Part, filesystem: Filesystem) -> Filesystem:
    """A filesystem as the copy will have it."""
    if source.origin == FOREIGN or filesystem.type not in ("ext4", "btrfs", "xfs"):
        return filesystem
    if filesystem.type == "ext4" and not ext4_uuid.is_ours(fd, part.offset_bytes):
        return filesystem
    return replace(filesystem, uuid=str(uuid.uuid4()))


def renew_table(fd: int, source: VolumeRow, row: VolumeRow) -> list[Renewal]:
    """Give the disk other GUIDs; what is to get another UUID. Blocks."""
    if has_gpt(fd):
        try:
            write_gpt(fd, read_gpt(fd).with_new_guids())
        except InvalidArgument:
            if source.origin != FOREIGN:
                raise
    if source.encryption != NONE:
        return []
    triples = zip(read_disk(fd), source.filesystems, row.filesystems, strict=True)
    return [Renewal(part, after.type, after.uuid) for part, before, after in triples if before.uuid != after.uuid]


def renew_superblocks(fd: int, one: Renewal) -> None:
    """Another UUID in the superblocks of the types that need no more. Blocks."""
    if one.type == "ext4":
        ext4_uuid.set_uuid(fd, one.part.offset_bytes, uuid.UUID(one.uuid))
    if one.type == "btrfs":
        btrfs_uuid.set_uuid(fd, one.part.offset_bytes, one.part.size_bytes, uuid.UUID(one.uuid))


def check_renewed(fd: int, one: Renewal) -> None:
    """Raise Internal for a filesystem that has not got its UUID: then nobody may mount it beside the original."""
    found = probe(fd, one.part.offset_bytes, one.part.size_bytes)
    if found is None or found.uuid != one.uuid:
        raise Internal(
            f"The copy's {one.type} is not known by its new UUID.",
            resolution="The volume is as it was. Report this.",
            reason="COPY_FAILED",
        )


@contextmanager
def copy_failures(row: VolumeRow) -> Iterator[None]:
    """What a job says, in words for the caller."""
    with job_failures("copy the volume"):
        try:
            yield
        except ChildFailed as failure:
            if failure.errno == errno.EBUSY:
                raise in_use(row, [failure.target]) from failure
            if failure.errno not in _DAMAGED:
                raise
            raise FailedPrecondition(
                f"The volume {row.name} cannot be copied: it is damaged, or of a type that this kernel does not know.",
                details=f"{failure}.",
                resolution="The volume is as it was. The daemon's host says more in its kernel log.",
                reason="VOLUME_UNUSABLE",
            ) from failure
