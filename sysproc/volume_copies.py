"""The verbs that copy volumes: clone and snapshot; and, at the start, that nothing stays frozen after a crash.

    the source's lock (nobody mounts, grows or deletes it meanwhile) -> intention (room is taken) -> file -> ready

A clone is a volume as any other. A snapshot is one too, but shows its moment for ever: it is mounted read-only, and
does not grow. Both stay when the original goes. The steps on files are in `sysproc.volume_copy_files`; how a volume is
recorded, and what a crash leaves, is in `sysproc.volumes`. Which container may name which is settled before.
"""

from dataclasses import dataclass
from functools import partial

from sysproc.failpoints import failpoint
from sysproc.host import Host
from sysproc.ids import new_volume_id, to_hex
from sysproc.storage import volumes as recorded
from sysproc.storage.quotas import Asker
from sysproc.storage.requests import RequestKey
from sysproc.storage.volumes import NewVolume, SnapshotOf, VolumeRow
from sysproc.to_end import to_end
from sysproc.volume_copy_files import VolumeCopyFiles
from sysproc.volumes import Volumes


@dataclass(frozen=True)
class WantedCopy:
    """A copy that somebody asks for. asked_by: the caller's container; owner_id: whose it will be; None: the host."""

    asked_by: int | None
    owner_id: int | None
    name: str
    on_destroy: str
    overcommit: bool
    snapshot: bool


class VolumeCopies:
    """One instance, used from one event loop."""

    def __init__(self, host: Host, volumes: Volumes) -> None:
        self._host, self._volumes = host, volumes
        self.files = VolumeCopyFiles(host.volume_files, host.state_dir, host.launcher)

    async def copy(self, source: VolumeRow, wanted: WantedCopy, request: RequestKey | None = None) -> VolumeRow:
        """Make a clone or a snapshot. Idempotent by the request's id."""
        return await self._volumes.answered_once(request, lambda: self._copy(source.id, wanted, request))

    async def _copy(self, source_id: int, wanted: WantedCopy, request: RequestKey | None) -> VolumeRow:
        await self._volumes.settle_what_is_left()
        async with self._host.volume_files.lock(source_id):
            source = await self._volumes.must(source_id)
            new = await self._new_row(source, wanted)
            failpoint("volumes.copy.after_plan")
            asker = Asker(wanted.asked_by, self._host.output_bytes)
            return await self._volumes.add(new, asker, partial(self.files.make, source), request)

    async def _new_row(self, source: VolumeRow, wanted: WantedCopy) -> NewVolume:
        if not wanted.overcommit:
            await to_end(self._host.state_dir.check_free, source.size_bytes)
        owner = "" if source.owner_id is None else to_hex(source.owner_id)
        return NewVolume(
            id=new_volume_id(),
            owner_id=wanted.owner_id,
            name=wanted.name,
            size_bytes=source.size_bytes,
            filesystems=await to_end(self.files.planned, source),
            on_destroy=wanted.on_destroy,
            overcommit=wanted.overcommit,
            origin=source.origin,
            encryption=source.encryption,
            snapshot=SnapshotOf(source.name, owner, 0.0) if wanted.snapshot else None,
        )

    async def recover(self) -> None:
        """Thaw what a copy has left frozen when all were killed that could have thawed it."""
        rows = await self._host.database.read(recorded.all_volumes)
        await self.files.thaw([row for row in rows if row.state == recorded.READY])
