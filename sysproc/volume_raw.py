"""Volumes as raw disks of containers: attached, detached, and gone with the container. The kernel is the only record.

    attach   part locked -> from now on "foreign" -> loop device, named for the container -> cgroups -> /dev/vsf/NAME
    detach   node and cgroups closed -> who has it open is told, or killed (force) -> cleared -> gone from the kernel
    end      the container's cgroups go -> cleared (`sysproc.take_apart`)

What was given as raw blocks is no filesystem for the kernel any more, before the first byte can be written: whoever had
it may have made it one that takes over the host. The host may vouch for it (`Volumes.trust`).
"""

import errno
import os
import time
from collections.abc import Sequence
from pathlib import Path

from sysproc.errors import FailedPrecondition, NotFound
from sysproc.failpoints import failpoint
from sysproc.host import Host
from sysproc.ids import from_hex, to_hex
from sysproc.isolation.volumes import raw as device
from sysproc.isolation.volumes.raw import Raw
from sysproc.process_list import pid_inside, read_status
from sysproc.running import RunningContainer, RunningContainers
from sysproc.storage import volumes as recorded
from sysproc.storage.volumes import FOREIGN, NONE, READY, VolumeRow
from sysproc.storage.vsf.gpt import Partition, read_gpt
from sysproc.to_end import to_end
from sysproc.volume_mounts import FREE_TIMEOUT_S, filesystem_at, node_name
from sysproc.volume_refusals import check_below, lingers
from sysproc.volume_uses import kill

_PAUSE_S = 0.01


class RawVolumes:
    """One instance, used from one event loop."""

    def __init__(self, host: Host, held: RunningContainers) -> None:
        self._host, self._held = host, held

    async def attach(self, container: RunningContainer, volume: VolumeRow, label: str, *, read_only: bool) -> bytes:
        """Give a container a filesystem's part; where, in it. Raises PermissionDenied, NotFound, FailedPrecondition."""
        check_below(container, volume)
        async with self._host.volume_files.lock(volume.id):
            row = await self._must(volume)
            at = filesystem_at(row, label)
            if row.encryption != NONE:
                raise not_raw(row)
            name = node_name(row, row.filesystems[at].label)
            part, file, one = await to_end(self._part, row, at), self._path(row), row.filesystems[at].label
            try:
                with device.locked_part(file, part.offset_bytes, part.size_bytes) as fd:
                    failpoint("volumes.raw.after_lock")
                    await self._host.database.write(lambda c: recorded.set_origin(c, row.id, FOREIGN))
                    failpoint("volumes.raw.after_origin")
                    await to_end(self._give, container, file, fd, part, one, name, read_only)
            except OSError as failure:
                raise refused(row, failure) from failure
            return b"/dev/vsf/" + name.encode()

    def _give(
        self, container: RunningContainer, file: Path, fd: int, part: Partition, label: str, name: str, read_only: bool
    ) -> None:
        which = to_hex(container.id)
        self._host.state_dir.container(which).raw.touch()
        path = device.make_device(fd, part.offset_bytes, part.size_bytes, which, label, read_only=read_only)
        raw = Raw(path, file, which, label)
        failpoint("volumes.raw.after_device")
        try:
            self._settle(container)
            failpoint("volumes.raw.after_cgroups")
            device.put_node(container.init_pidfd, name, raw.numbers, container.uid_base)
        except BaseException:
            self._settle(container, without=raw)
            device.clear(raw)
            raise

    # -- detach

    async def detach(self, container: RunningContainer, volume: VolumeRow, label: str, *, force: bool) -> None:
        """Take it away again. Raises NotFound, FailedPrecondition (who has it open)."""
        async with self._host.volume_files.lock(volume.id):
            row = await self._must(volume)
            wanted = row.filesystems[filesystem_at(row, label)].label
            await to_end(self._detach, container, row, wanted, force)

    def _detach(self, container: RunningContainer, row: VolumeRow, label: str, force: bool) -> None:
        raw = next((one for one in self._of(container) if (one.file, one.label) == (self._path(row), label)), None)
        if raw is None:
            raise not_attached(row)
        numbers = raw.numbers
        if not force and (users := self._users(container, numbers)):
            raise held(row, users)
        device.take_node(container.init_pidfd, node_name(row, label))
        self._settle(container, without=raw)
        failpoint("volumes.raw.after_closing")
        if force:
            self._end_users(container, numbers)
        elif users := self._users(container, numbers):  # opened just before it was closed
            self._reopen(container, row, raw)
            raise held(row, users)
        device.clear(raw)
        failpoint("volumes.raw.after_clear")
        self._wait_gone(raw)

    def _reopen(self, container: RunningContainer, row: VolumeRow, raw: Raw) -> None:
        self._settle(container)
        device.put_node(container.init_pidfd, node_name(row, raw.label), raw.numbers, container.uid_base)

    def _end_users(self, container: RunningContainer, numbers: tuple[int, int]) -> None:
        deadline = time.monotonic() + FREE_TIMEOUT_S
        while pids := {pid for pid, _ in device.users_of(container.cgroup.pids(), numbers)}:
            if time.monotonic() > deadline:
                raise lingers()
            kill(container, pids - {container.init_pid})
            time.sleep(_PAUSE_S)

    def _wait_gone(self, raw: Raw) -> None:
        deadline = time.monotonic() + FREE_TIMEOUT_S
        while device.raw_at(raw.path, raw.file) == raw and raw in device.raw_devices(raw.file.parent):
            if time.monotonic() > deadline:
                raise lingers()
            time.sleep(_PAUSE_S)

    def _users(self, container: RunningContainer, numbers: tuple[int, int]) -> list[str]:
        found = []
        for pid, path in device.users_of(container.cgroup.pids(), numbers):
            status = read_status(pid)
            if status is not None:
                found.append(f"{status['Name']} ({pid_inside(status)}): {path}")
        return found

    # -- which cgroups may open what

    def _settle(self, container: RunningContainer, without: Raw | None = None) -> None:
        """Let each container from the top down to this one open what it has, and what those below it have."""
        there = [one for one in device.raw_devices(self._host.state_dir.volumes) if one != without]
        for depth in range(1, len(container.path) + 1):
            path = container.path[:depth]
            cgroup = self._host.cgroups.open(path)
            if cgroup.exists:
                own = {one.numbers for one in there if one.container == path[-1]}
                below = {one.numbers for one in there if self._is_below(one, path[-1])}
                cgroup.give_block_devices(own, below)

    def _is_below(self, raw: Raw, above: str) -> bool:
        container = self._held.get(from_hex(raw.container))
        return container is not None and above in container.path

    def _of(self, container: RunningContainer) -> Sequence[Raw]:
        which = to_hex(container.id)
        return [one for one in device.raw_devices(self._host.state_dir.volumes) if one.container == which]

    async def _must(self, volume: VolumeRow) -> VolumeRow:
        row = await self._host.database.read(lambda c: recorded.by_id(c, volume.id))
        if row is None or row.state != READY:
            raise recorded.gone(volume.id)
        return row

    def _path(self, row: VolumeRow) -> Path:
        return self._host.volume_files.path(row)

    def _part(self, row: VolumeRow, at: int) -> Partition:
        fd = os.open(self._path(row), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return read_gpt(fd).partitions[at]
        finally:
            os.close(fd)


# -- errors


def refused(row: VolumeRow, failure: OSError) -> FailedPrecondition:
    """The kernel does not do it."""
    if failure.errno == errno.EBUSY:
        return FailedPrecondition(
            f"The volume {row.name} is in use: mounted, or a raw disk of somebody.",
            resolution="`sysproc volume inspect` shows where. Unmount or detach it there first.",
            reason="VOLUME_IN_USE",
            metadata={"volume": row.name},
        )
    return FailedPrecondition(
        f"The volume {row.name} could not be attached.",
        details=f"{failure.strerror}.",
        resolution="Is the container still running, with the /dev that it was given?",
        reason="NOT_ATTACHED",
        metadata={"volume": row.name},
    )


def not_raw(row: VolumeRow) -> FailedPrecondition:
    """Its bytes are encrypted."""
    return FailedPrecondition(
        f"The volume {row.name} is encrypted: it cannot be attached as a raw disk.",
        resolution="Mount it instead.",
        reason="ENCRYPTED",
        metadata={"volume": row.name},
    )


def not_attached(row: VolumeRow) -> NotFound:
    """It is none of the container's."""
    return NotFound(
        f"The volume {row.name} is not attached to this container as a raw disk.",
        resolution="`sysproc volume inspect` shows where it is attached.",
        reason="NOT_ATTACHED",
        metadata={"volume": row.name},
    )


def held(row: VolumeRow, users: Sequence[str]) -> FailedPrecondition:
    """Somebody has it open."""
    return FailedPrecondition(
        f"The raw disk {row.name} is in use: {'; '.join(users[:10])}.",
        resolution="End that first; `force` ends it.",
        reason="VOLUME_IN_USE",
        metadata={"volume": row.name, "users": "\n".join(users[:100])},
    )
