"""The verb export: what a volume holds at one moment, kept in a file without a name until all of it was sent.

    begun     the volume's lock -> copy, frozen where it is mounted (`sysproc.volume_copy_files`) -> held
    goes on   the same file, from an offset on
    over      when all was sent, when it is abandoned, ten minutes after the last call, or with the daemon

A mounted volume changes while it is sent, and one that is not may be mounted then: so what is sent is always a copy,
which costs nothing where the host's disk can share blocks. How an image becomes pieces is in
`sysproc.storage.vsf.pieces`, what is held in `sysproc.held_files`.
"""

import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sysproc.errors import FailedPrecondition, InvalidArgument
from sysproc.failpoints import failpoint
from sysproc.held_files import BLOCK_BYTES, Held, HeldFiles, Key
from sysproc.host import Host
from sysproc.storage import quotas
from sysproc.storage.quotas import Asker
from sysproc.storage.volumes import VolumeRow
from sysproc.storage.vsf.clone import unnamed_file
from sysproc.storage.vsf.pieces import PIECE_BYTES, Piece, compressed, digest_of, pieces
from sysproc.to_end import to_end
from sysproc.volume_copy_files import VolumeCopyFiles
from sysproc.volumes import Volumes


@dataclass(frozen=True)
class Exported:
    """What is sent. volume_id: of which it is a copy."""

    volume_id: int
    size_bytes: int


@dataclass(frozen=True)
class WantedExport:
    """An export that somebody asks for. asked_by: the container of the caller; None: the host."""

    asked_by: int | None
    export_id: str
    offset: int
    zstd: bool

    @property
    def key(self) -> Key:
        """By what it is held."""
        return self.asked_by, self.export_id


class VolumeExports:
    """One instance, used from one event loop."""

    def __init__(self, host: Host, volumes: Volumes, copies: VolumeCopyFiles) -> None:
        self._host, self._volumes, self._copies = host, volumes, copies
        self._held: HeldFiles[Exported] = host.exports

    async def prepare(self, row: VolumeRow, wanted: WantedExport) -> None:
        """Copy it, unless there is a copy to go on with.

        Raises FailedPrecondition, LimitExceeded, ResourceExhausted.
        """
        if wanted.offset == 0 and not self._held.has(wanted.key):
            self._held.check_room(wanted.asked_by)
            await self._volumes.to_its_end(lambda: self._begin(row.id, wanted))

    def abandon(self, key: Key) -> None:
        """It does not go on."""
        self._held.drop(key)

    @asynccontextmanager
    async def opened(self, row: VolumeRow, wanted: WantedExport) -> AsyncIterator[Held[Exported]]:
        """What is to be sent, for one call; kept for another if this one is broken off. Raises FailedPrecondition."""
        held = await self._held.take(wanted.key)
        if held is None:
            raise export_gone(row)
        try:
            check_goes_on(held, row, wanted)
            yield held
        except BaseException:
            self._held.put_back(wanted.key)
            raise
        self._held.end(wanted.key)

    async def _begin(self, volume_id: int, wanted: WantedExport) -> None:
        async with self._host.volume_files.lock(volume_id):
            row = await self._volumes.must(volume_id)
            await self._check_room(row, wanted)
            with unnamed_file(self._host.state_dir.volumes) as fd:
                await self._copies.copied(row, fd)
                failpoint("volumes.export.after_copy")
                held = Held(os.dup(fd), row.owner_id, Exported(row.id, row.size_bytes))
            self._held.add(wanted.key, held)
            self._held.put_back(wanted.key)

    async def _check_room(self, row: VolumeRow, wanted: WantedExport) -> None:
        """What the copy will occupy, where blocks are not shared."""
        stored = (await to_end(self._host.volume_files.path(row).stat)).st_blocks * BLOCK_BYTES
        await to_end(self._host.state_dir.check_free, stored)
        owner_id, asker = row.owner_id, Asker(wanted.asked_by, self._host.output_bytes)
        if owner_id is not None and not row.overcommit:
            await self._host.database.read(lambda c: quotas.check_room(c, owner_id, stored, asker))

    async def pieces(self, held: Held[Exported], wanted: WantedExport) -> AsyncGenerator[tuple[Piece, bytes], None]:
        """Each piece, and what of it is sent."""
        found = pieces(held.fd, held.state.size_bytes, wanted.offset)
        while (piece := await to_end(next, found, None)) is not None:
            yield piece, await to_end(compressed, piece) if wanted.zstd else piece.data

    async def digest(self, held: Held[Exported]) -> bytes:
        """Of the whole image."""
        return await to_end(digest_of, held.fd, held.state.size_bytes)


def check_goes_on(held: Held[Exported], row: VolumeRow, wanted: WantedExport) -> None:
    """Raise InvalidArgument for an id of another export, or an offset where no piece begins."""
    size = held.state.size_bytes
    begins = wanted.offset % PIECE_BYTES == 0 or wanted.offset == size
    if held.state.volume_id != row.id or wanted.offset > size or not begins:
        raise InvalidArgument(
            "This export does not go on there.",
            details=f"Pieces begin at whole MiB, up to {size}; an export_id is of one volume.",
            resolution="Go on where a piece has ended, or begin anew with another export_id.",
            reason="BAD_TRANSFER",
        )


def export_gone(row: VolumeRow) -> FailedPrecondition:
    """Nothing of it is held any more."""
    return FailedPrecondition(
        f"Nothing is kept any more of this export of the volume {row.name}.",
        details="The service was restarted meanwhile, or ten minutes have passed, or it was sent to its end.",
        resolution="Begin anew, with another export_id.",
        reason="EXPORT_GONE",
    )
