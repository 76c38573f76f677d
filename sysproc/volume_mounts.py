"""The verbs of volumes in containers: mount, unmount, and where one is mounted. The kernel is the only record.

    mount     the volume's lock (nobody grows or deletes it meanwhile) -> job -> mounted
    unmount   the topmost mount at the path, if it is of a volume -> job -> the device is free, or others have it
    forced    all its mounts in the container, whatever uses them; who still holds a file of it is killed

What was mounted goes with the container's last process, whoever dies: so nothing has to be undone after a crash, and
nothing is mounted again when a container is started. The jobs are `sysproc.isolation.volumes`; volumes themselves
`sysproc.volumes`; what is refused is worded in `sysproc.volume_refusals`. Whose volumes a caller may name is settled
before (`sysproc.server.targets`).
"""

import errno
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sysproc.compression import READ_ONLY
from sysproc.errors import SysprocError
from sysproc.failpoints import failpoint
from sysproc.host import Host
from sysproc.ids import from_hex, to_hex
from sysproc.isolation.launcher_client import ChildFailed
from sysproc.isolation.volumes.devices import Use, is_exclusive
from sysproc.isolation.volumes.holders import FILESYSTEMS, Holder, device_of_path, holders
from sysproc.isolation.volumes.mount_table import Mounted, mounts_of
from sysproc.isolation.volumes.raw import Raw, raw_at
from sysproc.linux.loop import loop_is_direct, loop_is_read_only, loop_offset
from sysproc.linux.memory import SecretBuffer
from sysproc.process_list import pid_inside, read_status
from sysproc.running import RunningContainer, RunningContainers
from sysproc.storage import volumes as recorded
from sysproc.storage.volumes import NONE, READY, Filesystem, VolumeRow, encrypts
from sysproc.to_end import to_end
from sysproc.volume_devices import VolumeDevices
from sysproc.volume_opening import VolumeOpening
from sysproc.volume_refusals import (
    busy,
    check_below,
    check_changeable,
    check_trusted,
    lingers,
    mount_failures,
    no_filesystem,
    not_mounted,
    too_many_mounts,
    unmount_failed,
    unmounting,
)
from sysproc.volume_uses import VolumeUses, in_words, kill

MOUNT_TIMEOUT_S = 60.0
FREE_TIMEOUT_S = 10.0
# Of one container: the kernel's memory for them is counted for nobody.
MOST_MOUNTS = 256
_PAUSE_S = 0.01
_ENDED = (errno.ESRCH, errno.ENOENT, errno.EINVAL)


@dataclass(frozen=True)
class WantedMount:
    """A mount that somebody asks for. filesystem: its label; empty: the only one. path: absolute."""

    filesystem: str
    path: bytes
    read_only: bool
    suid: bool
    noexec: bool
    exclusive: bool = False
    direct_io: bool = False


@dataclass(frozen=True)
class Attachment:
    """Where a filesystem of a volume is mounted; exclusive: and nowhere else; direct_io: past the page cache."""

    container_id: int
    path: bytes
    filesystem: str
    read_only: bool
    exclusive: bool = False
    direct_io: bool = False
    raw: bool = False


class VolumeMounts:
    """One instance, used from one event loop. frame: where jobs attach what they build (`launcher_protocol`)."""

    def __init__(self, host: Host, held: RunningContainers, frame: Path) -> None:
        self._host, self._held, self._frame = host, held, frame
        self._devices = VolumeDevices(host.state_dir)
        self.uses = VolumeUses(host, self._devices)
        self.opening = VolumeOpening(host.volume_files, self._devices, host.database)

    # -- mount

    async def mount(
        self, container: RunningContainer, volume: VolumeRow, wanted: WantedMount, secret: SecretBuffer | None = None
    ) -> None:
        """Mount a filesystem of a volume, whose secret is looked at if it is encrypted and locked.

        Raises PermissionDenied, NotFound, FailedPrecondition, InvalidArgument.
        """
        check_below(container, volume)
        async with self._host.volume_files.lock(volume.id):
            row = await self._host.database.read(lambda c: recorded.by_id(c, volume.id))
            if row is None or row.state != READY:
                raise recorded.gone(volume.id)
            check_trusted(row)
            if not wanted.read_only:
                check_changeable(row)
            try:
                await self._mount(container, row, wanted, secret)
            except SysprocError:
                await self.until_free(self._host.volume_files.path(row))
                raise
            failpoint("volumes.mount.after_job")

    async def _mount(
        self, container: RunningContainer, row: VolumeRow, wanted: WantedMount, secret: SecretBuffer | None
    ) -> None:
        use = Use(exclusive=wanted.exclusive, direct_io=wanted.direct_io)
        if wanted.exclusive:
            await self.until_free(self._host.volume_files.path(row))
        async with self.opening.known(row, wanted.filesystem, secret, use) as (known, now):
            at = filesystem_at(known, wanted.filesystem)
            values = await to_end(self._values, container, known, known.filesystems[at], wanted)
            async with self.opening.source(known, at, secret, use, now) as source:
                with mount_failures(known, wanted.path):
                    await self._host.launcher.run_job(
                        "attach",
                        {**values, **source.values},
                        [container.init_pidfd, *source.fds],
                        timeout_s=MOUNT_TIMEOUT_S,
                    )

    def _values(
        self, container: RunningContainer, volume: VolumeRow, filesystem: Filesystem, wanted: WantedMount
    ) -> Mapping[str, Any]:
        if sum(self._file_of(one) is not None for one in mounts_in(container)) >= MOST_MOUNTS:
            raise too_many_mounts(MOST_MOUNTS)
        read_only = wanted.read_only or filesystem.type in READ_ONLY
        return {
            "file": str(self._host.volume_files.path(volume)),
            "fstype": filesystem.type,
            "options": options_of(volume, filesystem),
            "path": wanted.path.hex(),
            "read_only": read_only,
            "suid": wanted.suid,
            "noexec": wanted.noexec,
            "exclusive": wanted.exclusive,
            "direct_io": wanted.direct_io,
            "snapshot": volume.snapshot is not None,
            # Others than the owner, if they may only read, get none of its ids: nothing can be said back.
            "own_ids": not read_only or container.id == volume.owner_id,
            "frame": str(self._frame),
        }

    # -- unmount

    async def unmount(self, container: RunningContainer, path: bytes, *, force: bool) -> None:
        """Take the topmost volume at a path out again. Raises NotFound, FailedPrecondition (who uses it)."""
        mounted, file = await to_end(self._mounted_at, container, path)
        device = await to_end(device_of_path, container.init_pid, mounted)
        if force:
            await self._unmount_all(container, mounted, device)
        else:
            await self._unmount_one(container, mounted, device)
        await self.until_free(file, [container])

    async def _unmount_one(self, container: RunningContainer, mounted: Mounted, device: str) -> None:
        path = mounted.point
        try:
            await self._detach(container, mounted, force=False)
        except ChildFailed as failure:
            if failure.errno != errno.EBUSY:
                raise unmount_failed(path, failure) from failure
            users = await to_end(self._users, container, device, mounted)
            raise busy(path, users) from failure

    def _mounted_at(self, container: RunningContainer, path: bytes) -> tuple[Mounted, Path]:
        """What is on top there, and the volume's file."""
        wanted = b"/" + b"/".join(part for part in path.split(b"/") if part)
        found = [one for one in mounts_in(container) if one.point == wanted]
        file = self._file_of(found[-1]) if found else None
        if file is None:
            raise not_mounted(path)
        return found[-1], file

    def _file_of(self, mounted: Mounted) -> Path | None:
        """The file of the volume that is mounted; None if it is of none."""
        return self._devices.file_of(mounted.source) if mounted.fstype in FILESYSTEMS else None

    async def until_free(self, file: Path, among: Collection[RunningContainer] = ()) -> None:
        """Until the kernel has nothing of it any more, unless it is mounted elsewhere.

        Raises FailedPrecondition, with whoever of these containers uses it still.
        """
        await to_end(self._wait_free, file, among)

    def _wait_free(self, file: Path, among: Collection[RunningContainer]) -> None:
        deadline = time.monotonic() + FREE_TIMEOUT_S
        while self._is_lingering(file):
            if time.monotonic() > deadline:
                raise lingers(in_words(self.uses.of(file, among)))
            time.sleep(_PAUSE_S)

    def _is_lingering(self, file: Path) -> bool:
        """Whether a loop device has it, or the process that decrypts it, and no container does."""
        devices = {one for one in self._devices.of_file(file) if raw_at(one, file) is None}
        if not devices:
            return self._devices.is_held(file)
        everywhere = (mounted.source for container in self._held.all().values() for mounted in mounts_in(container))
        return devices.isdisjoint(everywhere)

    async def _detach(self, container: RunningContainer, mounted: Mounted, *, force: bool) -> None:
        pids = [pid for pid in container.cgroup.pids() if pid != container.init_pid]
        values = {"pids": pids, "device": mounted.device, "mount": mounted.id, "force": force}
        await self._host.launcher.run_job("detach", values, [container.init_pidfd], timeout_s=MOUNT_TIMEOUT_S)

    async def _unmount_all(self, container: RunningContainer, mounted: Mounted, device: str) -> None:
        deadline = time.monotonic() + FREE_TIMEOUT_S
        while time.monotonic() < deadline:
            with unmounting(mounted.point):
                await self._detach(container, mounted, force=True)
            users = await to_end(self._holders, container, device, mounted)
            if not users:
                return
            await to_end(kill, container, {one.pid for one in users} - {container.init_pid})
        raise busy(mounted.point, await to_end(self._users, container, device, mounted))

    def _holders(self, container: RunningContainer, device: str, mounted: Mounted) -> list[Holder]:
        return list(holders(container.cgroup.pids(), {device, mounted.device}))

    def _users(self, container: RunningContainer, device: str, mounted: Mounted) -> list[str]:
        """Who uses it, by their pids inside; the mount itself is none."""
        found = []
        for one in self._holders(container, device, mounted):
            if one.what == "mount" and one.path == os.fsdecode(mounted.point):
                continue
            status = read_status(one.pid)
            if status is not None:
                found.append(f"{status['Name']} ({pid_inside(status)}): {one.what} {one.path}")
        return found

    # -- where

    async def attachments(self, rows: Sequence[VolumeRow]) -> Mapping[int, Sequence[Attachment]]:
        """Where each of these volumes is mounted, by its id."""
        return await to_end(self._attachments, rows)

    def places(self, row: VolumeRow) -> Sequence[str]:
        """Where it is, in words. Blocks."""
        return [place(one) for one in self._attachments([row])[row.id]]

    def users(self, row: VolumeRow) -> Sequence[str]:
        """Who uses it though it is nowhere, in words. Blocks."""
        return in_words(self.uses.of(self._host.volume_files.path(row), self._held.all().values()))

    def _attachments(self, rows: Sequence[VolumeRow]) -> Mapping[int, Sequence[Attachment]]:
        devices = self._devices.mountable(rows)
        found: dict[int, list[Attachment]] = {row.id: [] for row in rows}
        if devices:
            for container in self._held.all().values():
                for mounted in mounts_in(container):
                    if mounted.source in devices and mounted.fstype in FILESYSTEMS:
                        row, label = devices[mounted.source]
                        one = Attachment(container.id, mounted.point, label, mounted.read_only)
                        found[row.id].append(self._with_use(one, row, mounted.source))
            for device, (row, label) in devices.items():
                raw = raw_at(device, self._host.volume_files.path(row))
                if raw is not None:
                    found[row.id].append(raw_attachment(raw, row, label))
        return found

    def _with_use(self, one: Attachment, row: VolumeRow, device: str) -> Attachment:
        """How the device is used."""
        at = filesystem_at(row, one.filesystem)
        if encrypts(row, at):
            alone, direct = self._devices.is_exclusive(row, at, device), self._devices.is_direct(row, at)
            return replace(one, exclusive=alone, direct_io=direct)
        offset = loop_offset(device)
        if offset is None:
            return one
        alone = is_exclusive(self._host.volume_files.path(row), offset)
        return replace(one, exclusive=alone, direct_io=loop_is_direct(device))


def raw_attachment(raw: Raw, row: VolumeRow, label: str) -> Attachment:
    """Where a raw disk is (`sysproc.volume_raw`)."""
    path = b"/dev/vsf/" + node_name(row, label).encode()
    return Attachment(from_hex(raw.container), path, label, loop_is_read_only(raw.path), exclusive=True, raw=True)


def place(attachment: Attachment) -> str:
    """Where a volume is, in words for the caller."""
    how = "attached to" if attachment.raw else "mounted in"
    return f"{how} {to_hex(attachment.container_id)} at {os.fsdecode(attachment.path)}"


def node_name(row: VolumeRow, label: str) -> str:
    """Below /dev/vsf: the volume's name, and the label where there are several filesystems."""
    return row.name if len(row.filesystems) == 1 else f"{row.name}.{label}"


def options_of(volume: VolumeRow, filesystem: Filesystem) -> Mapping[str, str | None]:
    """What is said each time that it is mounted: btrfs does not know by itself how it is to compress.

    Of a snapshot the filesystem itself is read-only, or mounting it would be noted in its superblock. ext4 would fill
    its empty inode tables with zeros in the background, which is free in a sparse file; what is encrypted has no holes,
    and would grow by 16 MiB for each GiB. A copy of an encrypted xfs has its UUID, and is to be mounted beside it.
    """
    sealed = volume.encryption != NONE and not filesystem.plain
    said = {
        "ro": (None, volume.snapshot is not None),
        "compress": (filesystem.compression, filesystem.type == "btrfs" and bool(filesystem.compression)),
        "noinit_itable": (None, filesystem.type == "ext4" and sealed),
        "nouuid": (None, filesystem.type == "xfs" and sealed),
    }
    return {name: value for name, (value, holds) in said.items() if holds}


def filesystem_at(volume: VolumeRow, label: str) -> int:
    """Which filesystem is meant; empty: the only one. Raises NotFound."""
    labels = [one.label for one in volume.filesystems]
    if (label and label not in labels) or (not label and len(labels) > 1):
        raise no_filesystem(volume, label)
    return labels.index(label) if label else 0


def mounts_in(container: RunningContainer) -> Iterator[Mounted]:
    """All mounts of a container; none once it has ended."""
    try:
        yield from mounts_of(container.init_pid)
    except OSError as failure:
        if failure.errno not in _ENDED:
            raise
