"""The verb that looks whether the filesystems of a volume are whole, and repairs them where that is wished.

    look      its file, read-only; where a journal waits, a copy in which that is replayed first
    repair    copy (shared blocks where the disk can) -> the damaged ones repaired in it -> looked at again
              -> renamed over the file, if all is whole

The tools run in a jail (`sysproc.isolation.tool_jail`): what they read may be hostile. Of an encrypted volume they are
given what is decrypted. Where the filesystems of a file are is in `sysproc.volume_checked_parts`, volumes themselves
are in `sysproc.volumes`, their files in `sysproc.volume_files`.
"""

import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass

from sysproc.encrypted_files import must_have, opened
from sysproc.host import Host
from sysproc.images import full_disk_as_enospc, job_failures
from sysproc.isolation.fsck import CLEAN, REPAIRED, verdict
from sysproc.isolation.tool_jail import OUTPUT_BYTES
from sysproc.linux.memory import SecretBuffer
from sysproc.sparse import copy_sparse
from sysproc.storage import volumes as recorded
from sysproc.storage.volumes import NONE, READY, VolumeRow
from sysproc.storage.vsf.clone import disk_full_as_domain_error, unnamed_file
from sysproc.to_end import to_end
from sysproc.volume_checked_parts import CheckedParts, Place, is_repairable, journal_waits
from sysproc.volume_files import put_in_place


@dataclass(frozen=True)
class Checked:
    """How a filesystem was found: clean, repaired, damaged or failed; and what the tool has said."""

    filesystem: str
    result: str
    output: str


class VolumeChecks:
    """One instance, used from one event loop."""

    def __init__(self, host: Host) -> None:
        self._host, self._jails = host, host.jails

    async def check(
        self, volume: VolumeRow, *, repair: bool, secret: SecretBuffer | None = None
    ) -> AsyncGenerator[Checked, None]:
        """Each filesystem when it is done. secret: of an encrypted volume.

        Raises FailedPrecondition (in use, locked, a tool), WrongKey, ResourceExhausted.
        """
        files = self._host.volume_files
        async with files.lock(volume.id), AsyncExitStack() as stack:
            row = await self._host.database.read(lambda c: recorded.by_id(c, volume.id))
            if row is None or row.state != READY:
                raise recorded.gone(volume.id)
            await to_end(files.check_unused, row)
            shown = None if row.encryption == NONE else must_have(secret, row)
            parts = CheckedParts(row, files.unlocking, shown)
            # What is decrypted could be written; the tools get a device that is read-only.
            fd = stack.enter_context(opened(files.path(row), os.O_RDONLY if shown is None else os.O_RDWR))
            damaged = []
            looked = await stack.enter_async_context(aclosing(self._look(parts, fd)))
            async for place, one in looked:
                if repair and is_repairable(place, one.result):
                    damaged.append((place, one))
                else:
                    yield one
            if damaged:
                for one in await self._repair(parts, fd, damaged):
                    yield one

    async def _look(self, parts: CheckedParts, fd: int) -> AsyncGenerator[tuple[Place, Checked], None]:
        with unnamed_file(self._host.state_dir.volumes) as copy:
            copied = False
            for area in range(await parts.areas(fd)):
                async with parts.shown(fd, area) as places:
                    waiting = any(map(journal_waits, places))
                    for place in () if waiting else places:
                        yield place, await self._run(place, "look")
                if waiting:
                    if not copied:
                        await self._copy(fd, copy)
                        copied = True
                    async with parts.shown(copy, area) as places:
                        for place in places:
                            yield place, await self._replayed(place)

    async def _replayed(self, place: Place) -> Checked:
        if journal_waits(place):
            await self._run(place, "replay")
        return await self._run(place, "look")

    async def _repair(self, parts: CheckedParts, fd: int, damaged: Sequence[tuple[Place, Checked]]) -> list[Checked]:
        """Those that were damaged, as they are now; the copy takes the volume's place if it is better in each."""
        looked, done = {(place.area, place.offset): one for place, one in damaged}, list[Checked]()
        with unnamed_file(self._host.state_dir.volumes) as copy:
            await self._copy(fd, copy)
            for area in sorted({place.area for place, _ in damaged}):
                async with parts.shown(copy, area) as places:
                    wanted = [one for one in places if (one.area, one.offset) in looked]
                    done += [await self._repaired(one, looked[one.area, one.offset]) for one in wanted]
            if all(one.result == REPAIRED for one in done):
                await to_end(put_in_place, copy, self._host.volume_files.path(parts.row))
        return done

    async def _repaired(self, place: Place, looked: Checked) -> Checked:
        said = await self._run(place, "repair")
        again = await self._run(place, "look")
        output = (looked.output + said.output)[:OUTPUT_BYTES]
        return Checked(place.label, REPAIRED if again.result == CLEAN else again.result, output)

    async def _copy(self, fd: int, copy: int) -> None:
        with disk_full_as_domain_error(self._host.state_dir.volumes / "copy"):
            await to_end(copy_sparse, fd, copy)

    async def _run(self, place: Place, mode: str) -> Checked:
        directory = self._host.state_dir.volumes
        with job_failures(f"check the volume {place.volume}"), full_disk_as_enospc(directory):
            said = await self._jails.run("check", {**place.values, "mode": mode}, [place.fd])
        return Checked(place.label, verdict(place.type, mode, said["status"]), said["output"])
