"""The verb that looks whether the filesystems of a volume are whole, and repairs them where that is wished.

    look      its file, read-only; where a journal waits, a copy in which that is replayed first
    repair    copy (shared blocks where the disk can) -> the damaged ones repaired in it -> looked at again
              -> renamed over the file, if all is whole

The tools run in a jail (`sysproc.isolation.tool_jail`): what they read may be hostile. Volumes themselves are in
`sysproc.volumes`, their files in `sysproc.volume_files`.
"""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from sysproc.errors import FailedPrecondition
from sysproc.host import Host
from sysproc.images import full_disk_as_enospc, job_failures
from sysproc.isolation.fsck import CLEAN, DAMAGED, FSCK, REPAIRED, verdict
from sysproc.isolation.tool_jail import OUTPUT_BYTES
from sysproc.jailed import Jails
from sysproc.sparse import copy_sparse
from sysproc.storage import volumes as recorded
from sysproc.storage.volumes import READY, VolumeRow
from sysproc.storage.vsf.clone import disk_full_as_domain_error, unnamed_file
from sysproc.storage.vsf.disk import Part, read_disk
from sysproc.to_end import to_end
from sysproc.volume_files import put_in_place

_INCOMPATIBLE_AT, _NEEDS_RECOVERY = 1024 + 0x60, 0x4
_WITH_JOURNAL = frozenset({"ext3", "ext4"})


@dataclass(frozen=True)
class Checked:
    """How a filesystem was found: clean, repaired, damaged or failed; and what the tool has said."""

    filesystem: str
    result: str
    output: str


class VolumeChecks:
    """One instance, used from one event loop."""

    def __init__(self, host: Host, jails: Jails) -> None:
        self._host, self._jails = host, jails

    async def check(self, volume: VolumeRow, *, repair: bool) -> AsyncIterator[Checked]:
        """Each filesystem when it is done. Raises FailedPrecondition (in use, a tool), ResourceExhausted."""
        files = self._host.volume_files
        async with files.lock(volume.id), AsyncExitStack() as stack:
            row = await self._host.database.read(lambda c: recorded.by_id(c, volume.id))
            if row is None or row.state != READY:
                raise recorded.gone(volume.id)
            await to_end(files.check_unused, row)
            fd = os.open(files.path(row), os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            parts = await to_end(read_disk, fd)
            check_readable(row, parts)
            looked = []
            async for one in self._look(row, fd, parts):
                looked.append(one)
                if not (repair and is_repairable(parts[len(looked) - 1], one)):
                    yield one
            if repair and any(map(is_repairable, parts, looked)):
                for one in await self._repair(row, fd, parts, looked):
                    yield one

    async def _look(self, row: VolumeRow, fd: int, parts: Sequence[Part]) -> AsyncIterator[Checked]:
        waiting = [part for part in parts if journal_waits(fd, part)]
        with unnamed_file(self._host.state_dir.volumes) as copy:
            if waiting:
                await self._copy(fd, copy)
                for part in waiting:
                    await self._run(row, copy, part, "replay", "")
            for part, filesystem in zip(parts, row.filesystems, strict=True):
                yield await self._run(row, copy if waiting else fd, part, "look", filesystem.label)

    async def _repair(
        self, row: VolumeRow, fd: int, parts: Sequence[Part], looked: Sequence[Checked]
    ) -> Sequence[Checked]:
        """Those that were damaged, as they are now; the copy takes the volume's place if it is better in each."""
        done = []
        with unnamed_file(self._host.state_dir.volumes) as copy:
            await self._copy(fd, copy)
            for part, one in zip(parts, looked, strict=True):
                if is_repairable(part, one):
                    said = await self._run(row, copy, part, "repair", one.filesystem)
                    again = await self._run(row, copy, part, "look", one.filesystem)
                    output = (one.output + said.output)[:OUTPUT_BYTES]
                    result = REPAIRED if again.result == CLEAN else again.result
                    done.append(Checked(one.filesystem, result, output))
            if all(one.result == REPAIRED for one in done):
                await to_end(put_in_place, copy, self._host.volume_files.path(row))
        return done

    async def _copy(self, fd: int, copy: int) -> None:
        with disk_full_as_domain_error(self._host.state_dir.volumes / "copy"):
            await to_end(copy_sparse, fd, copy)

    async def _run(self, row: VolumeRow, fd: int, part: Part, mode: str, label: str) -> Checked:
        kind = part.contents.kind if part.contents else ""
        values = {"type": kind, "mode": mode, "offset": part.offset_bytes, "size": part.size_bytes}
        directory = self._host.state_dir.volumes
        with job_failures(f"check the volume {row.name}"), full_disk_as_enospc(directory):
            said = await self._jails.run("check", values, [fd])
        return Checked(label, verdict(kind, mode, said["status"]), said["output"])


def journal_waits(fd: int, part: Part) -> bool:
    """Whether it was not unmounted: only with its journal replayed it is what it is."""
    if part.contents is None or part.contents.kind not in _WITH_JOURNAL:
        return False
    raw = os.pread(fd, 4, part.offset_bytes + _INCOMPATIBLE_AT)
    return bool(int.from_bytes(raw, "little") & _NEEDS_RECOVERY)


def is_repairable(part: Part, found: Checked) -> bool:
    """Whether it is damaged, and its tool can repair it in the jail."""
    return found.result == DAMAGED and part.contents is not None and bool(FSCK[part.contents.kind].repair)


def check_readable(row: VolumeRow, parts: Sequence[Part]) -> None:
    """Raise FailedPrecondition unless each part has a filesystem that a tool can look at."""
    kinds = [part.contents.kind if part.contents else "" for part in parts]
    unknown = [kind or "nothing known" for kind in kinds if kind not in FSCK]
    if unknown or len(parts) != len(row.filesystems):
        raise FailedPrecondition(
            f"The volume {row.name} cannot be checked: it has {', '.join(unknown) or 'other parts'} in it.",
            resolution="What is encrypted or of a type without a tool can only be mounted, or looked at elsewhere.",
            reason="VOLUME_NOT_CHECKABLE",
            metadata={"volume": row.name},
        )
