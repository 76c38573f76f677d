"""The verbs of encrypted volumes: lock, change keys; and whether one is unlocked, or broken.

    lock         the volume's lock (nobody mounts it meanwhile) -> unmounted everywhere, if forced -> no process has it
    add, change, remove    the volume's lock -> a process edits the headers, and ends

A volume is unlocked by the first mount, which is in `sysproc.volume_mounts`, and locked with the end of the last: so
there is nothing to lock where nothing is mounted. The processes are `sysproc.storage.decrypted`.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace

from sysproc.encrypted_files import EncryptedFiles, keyed_areas, opened
from sysproc.errors import FailedPrecondition, NotFound
from sysproc.failpoints import failpoint
from sysproc.host import Host
from sysproc.linux.memory import SecretBuffer
from sysproc.once import Once, TaskOwner
from sysproc.running import RunningContainers
from sysproc.storage import volumes as recorded
from sysproc.storage.volumes import NONE, READY, VolumeRow, encrypts
from sysproc.to_end import to_end
from sysproc.unlocking import wait_unlocked
from sysproc.volume_devices import VolumeDevices
from sysproc.volume_mounts import Attachment, VolumeMounts, filesystem_at, place
from sysproc.volume_uses import in_words


@dataclass(frozen=True)
class LockState:
    """Whether it is open; whether what decrypts it was killed; the keys of each filesystem, if they were looked at."""

    unlocked: bool = False
    broken: bool = False
    key_slots: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class KeyChange:
    """verb: `add`, `change`, `remove` (`sysproc.storage.decrypted.key_work`); the secrets are wiped when it is done."""

    verb: str
    secret: SecretBuffer
    new: SecretBuffer | None
    slot: int | None


class VolumeKeys:
    """One instance, used from one event loop."""

    def __init__(self, host: Host, held: RunningContainers, mounts: VolumeMounts, tasks: TaskOwner) -> None:
        self._host, self._held, self._mounts = host, held, mounts
        self._files, self._devices, self._once = host.volume_files, VolumeDevices(host.state_dir), Once(tasks)

    # -- state

    async def states(self, rows: Sequence[VolumeRow]) -> Mapping[int, LockState]:
        """Of each of these volumes, by its id; without their keys."""
        return await to_end(self._states, rows)

    def _states(self, rows: Sequence[VolumeRow]) -> Mapping[int, LockState]:
        found = {row.id: LockState() for row in rows}
        decrypted = self._devices.decrypted(rows)
        for row in {row.id: row for row, _ in decrypted}.values():
            broken = self._devices.broken(row, [one for other, one in decrypted if other.id == row.id])
            found[row.id] = LockState(unlocked=not broken, broken=broken)
        return found

    async def state(self, row: VolumeRow) -> LockState:
        """Of one volume, with its keys. Raises DataLoss (its header)."""
        state = (await self.states([row]))[row.id]
        slots = await to_end(EncryptedFiles.key_slots, row, self._files.path(row))
        return replace(state, key_slots=tuple(tuple(one) for one in slots))

    # -- lock

    async def lock(self, row: VolumeRow, *, force: bool) -> None:
        """See above. Raises FailedPrecondition: where it is mounted; what holds it still."""
        check_encrypted(row)
        await self._once.run(None, lambda: self._lock(row, force))

    async def _lock(self, row: VolumeRow, force: bool) -> None:
        async with self._files.lock(row.id):
            while attachments := await self._decrypted(row):
                if not force:
                    raise mounted(row, attachments)
                for one in attachments:
                    await self._unmount(one)
            failpoint("volumes.lock.after_unmount")
            await self._end_uses(row, force=force)
            with opened(self._files.path(row), os.O_RDONLY) as fd:
                for area in await to_end(keyed_areas, fd, row):
                    await to_end(wait_unlocked, area)

    async def _end_uses(self, row: VolumeRow, *, force: bool) -> None:
        """Of what no init shows: mounts in namespaces made inside, files open since a lazy umount."""
        file, everywhere = self._files.path(row), self._held.all()
        if not all(encrypts(row, at) for at in range(len(row.filesystems))):
            everywhere = {}  # what is not encrypted of it stays mounted
        if force:
            await self._mounts.uses.end(file, everywhere)
        elif users := await to_end(lambda: in_words(self._mounts.uses.of(file, everywhere.values()))):
            raise used(row, users)
        await self._mounts.until_free(file, everywhere.values())

    async def _decrypted(self, row: VolumeRow) -> Sequence[Attachment]:
        """Where what is encrypted of it is mounted."""
        every = (await self._mounts.attachments([row]))[row.id]
        return [one for one in every if encrypts(row, filesystem_at(row, one.filesystem))]

    async def _unmount(self, attachment: Attachment) -> None:
        container = self._held.get(attachment.container_id)
        if container is not None:
            with suppress(NotFound):  # somebody else was quicker
                await self._mounts.unmount(container, attachment.path, force=True)

    # -- keys

    async def change(self, row: VolumeRow, change: KeyChange) -> None:
        """See above. Raises WrongKey, NotFound (the slot), FailedPrecondition (the last one), ResourceExhausted."""
        check_encrypted(row)
        await self._once.run(None, lambda: self._change(row.id, change))

    async def _change(self, volume_id: int, change: KeyChange) -> None:
        with change.secret, change.new or nullcontext():
            async with self._files.lock(volume_id):
                row = await self._host.database.read(lambda c: recorded.by_id(c, volume_id))
                if row is None or row.state != READY:
                    raise recorded.gone(volume_id)
                with opened(self._files.path(row), os.O_RDWR) as fd:
                    regions = await to_end(keyed_areas, fd, row)
                    work = self._files.unlocking.change_keys
                    await work(change.verb, regions, change.secret, change.new, change.slot)
                failpoint("volumes.keys.after_work")


def check_encrypted(row: VolumeRow) -> None:
    """Raise FailedPrecondition for a volume that has no keys."""
    if row.encryption == NONE:
        raise FailedPrecondition(
            f"The volume {row.name} is not encrypted.",
            resolution="Only volumes that were created encrypted have keys, and can be locked.",
            reason="NOT_ENCRYPTED",
            metadata={"volume": row.name},
        )


def mounted(row: VolumeRow, attachments: Sequence[Attachment]) -> FailedPrecondition:
    """Somebody uses it."""
    return used(row, [place(one) for one in attachments])


def used(row: VolumeRow, users: Sequence[str]) -> FailedPrecondition:
    """These use it."""
    return FailedPrecondition(
        f"The volume {row.name} is in use: {', '.join(users[:10])}.",
        resolution="Unmount it there first; `force` does it, and ends what uses it.",
        reason="VOLUME_IN_USE",
        metadata={"volume": row.name, "users": "\n".join(users[:100])},
    )
