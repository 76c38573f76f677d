"""Who uses a volume that no init shows any more: mounts in namespaces made inside, files open since a lazy umount.

    of     the devices of the volume's file -> in each container: mounts, files, directories, programs of its processes
    end    every mount of these devices in every namespace goes -> who holds one still is killed -> looked at again

What is seen of a process is `sysproc.isolation.volumes.holders`; where volumes are mounted as everybody sees it,
`sysproc.volume_mounts`. What is in flight in a socket, or in a namespace without processes, is not found: that ends
with its container.
"""

import errno
import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sysproc.host import Host
from sysproc.ids import to_hex
from sysproc.isolation.volumes.freeze import is_mounted, top_of
from sysproc.isolation.volumes.holders import Holder, device_of_file, devices_of, holders
from sysproc.isolation.volumes.raw import raw_at
from sysproc.linux.block_devices import block_attribute
from sysproc.linux.pidfd import kill_listed
from sysproc.process_list import pid_inside, read_status
from sysproc.running import RunningContainer
from sysproc.to_end import to_end
from sysproc.volume_devices import VolumeDevices

# Files of btrfs have numbers of their own, which its top directory tells; but for subvolumes that are made inside.
_NOT_LIKE_THIS = (errno.EBUSY, errno.EROFS, errno.EACCES, errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EIO)
DETACH_TIMEOUT_S = 60.0
END_S = 10.0


@dataclass(frozen=True)
class Use:
    """A use by a process of a container; devices: those of the volume there ("major:minor")."""

    container: RunningContainer
    holder: Holder
    devices: frozenset[str]


class VolumeUses:
    """One instance, used from one event loop."""

    def __init__(self, host: Host, devices: VolumeDevices) -> None:
        self._host, self._devices = host, devices

    def of(self, file: Path, among: Iterable[RunningContainer]) -> Sequence[Use]:
        """All uses of the volume in this file by processes of these containers. Blocks."""
        paths = {one for one in self._devices.of_file(file) if raw_at(one, file) is None}
        numbers = {number for path in paths for number in numbers_of(path)}
        return [use for container in among for use in uses_in(container, numbers, paths)] if numbers else []

    async def end(self, file: Path, among: Mapping[int, RunningContainer]) -> None:
        """End them all, except what cannot be ended: that is still there afterwards."""
        deadline = time.monotonic() + END_S
        while uses := await to_end(self.of, file, among.values()):
            for container in {use.container.id: use.container for use in uses}.values():
                own = [use for use in uses if use.container.id == container.id]
                await self._detach(container, own[0].devices)
            left = await to_end(self.of, file, among.values())
            for use in left:
                await to_end(kill, use.container, {use.holder.pid} - {use.container.init_pid})
            if time.monotonic() > deadline:
                return

    async def _detach(self, container: RunningContainer, devices: Collection[str]) -> None:
        pids = [pid for pid in container.cgroup.pids() if pid != container.init_pid]
        for device in devices:
            values = {"pids": pids, "device": device, "mount": 0, "force": True}
            await self._host.launcher.run_job("detach", values, [container.init_pidfd], timeout_s=DETACH_TIMEOUT_S)


def numbers_of(path: str) -> Sequence[str]:
    """How tables of mounts and files may call what is on a block device ("major:minor"); none: it is gone. Blocks."""
    number = block_attribute(path, "dev")
    if number is None or not is_mounted("btrfs", path):
        return [] if number is None else [number]
    try:
        top = top_of("btrfs", path)
    except OSError as failure:
        if failure.errno not in _NOT_LIKE_THIS:
            raise
        return [number]
    try:
        return [number, device_of_file(f"/proc/self/fd/{top}")]
    finally:
        os.close(top)


def uses_in(container: RunningContainer, numbers: Collection[str], paths: Collection[str]) -> Sequence[Use]:
    """All uses in one container. Blocks."""
    pids = container.cgroup.pids()
    devices = frozenset({*numbers, *devices_of(pids, paths)})
    return [Use(container, one, devices) for one in holders(pids, devices)]


def in_words(uses: Iterable[Use]) -> list[str]:
    """Who they are, by their pids inside. Those that have ended meanwhile are left out. Blocks."""
    found = []
    for use in uses:
        status = read_status(use.holder.pid)
        if status is not None:
            where = to_hex(use.container.id)
            found.append(f"{status['Name']} ({pid_inside(status)}) in {where}: {use.holder.what} {use.holder.path}")
    return found


def kill(container: RunningContainer, pids: Collection[int]) -> None:
    """SIGKILL to these processes, as far as they are of the container still."""
    kill_listed(pids, container.cgroup.pids)
