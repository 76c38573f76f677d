"""What can be done with a volume, for asyncio, that makes another thing of it: a clone, a snapshot, a file.

A part of `sysproc_client.aio.volumes.AsyncVolume`; how files are written is in
`sysproc_client.aio.volume_transfers`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, cast

from nightos.sysproc.v1 import volume_service_pb2 as service
from sysproc_client import volume_transfers
from sysproc_client._core import volume_requests as requests
from sysproc_client._core.volume_facts import VolumeFacts
from sysproc_client.aio import volume_transfers as transfers
from sysproc_client.aio.connection import Connection
from sysproc_client.aio.made import made_or_undone

if TYPE_CHECKING:
    from sysproc_client.aio.volumes import AsyncVolume, AsyncVolumes, Owner


class AsyncCopied(VolumeFacts):
    """The methods of a volume that copy it."""

    _volumes: "AsyncVolumes"

    async def clone(
        self,
        name: str,
        *,
        owner: "Owner" = None,
        on_destroy: str = "delete",
        overcommit: bool = False,
        request_id: str | None = None,
    ) -> "AsyncVolume":
        """Make another volume of what is in it now, also while it is mounted; of the same owner unless one is said.

        Raises AlreadyExists (the name), FailedPrecondition (in use as a raw disk, damaged), LimitExceeded.
        """
        asked = requests.copy_fields(
            self.ref, name, owner=owner, on_destroy=on_destroy, overcommit=overcommit, request_id=request_id
        )
        cloning = self._volumes._clone(service.CloneVolumeRequest(**asked))
        return await (cloning if request_id else made_or_undone(cloning, lambda copy: copy.delete()))

    async def snapshot(
        self,
        name: str,
        *,
        owner: "Owner" = None,
        on_destroy: str = "delete",
        overcommit: bool = False,
        request_id: str | None = None,
    ) -> "AsyncVolume":
        """The same, and it can only be read, for ever.

        Raises AlreadyExists (the name), FailedPrecondition (in use as a raw disk, damaged), LimitExceeded.
        """
        asked = requests.copy_fields(
            self.ref, name, owner=owner, on_destroy=on_destroy, overcommit=overcommit, request_id=request_id
        )
        copying = self._volumes._snapshot(service.SnapshotVolumeRequest(**asked))
        return await (copying if request_id else made_or_undone(copying, lambda copy: copy.delete()))

    async def export_to(
        self,
        target: volume_transfers.PathLike | BinaryIO,
        *,
        zstd: bool | None = None,
        replace: bool = False,
        progress: volume_transfers.Progress = lambda done, size: None,
    ) -> bytes:
        """Write what is in it now, also while it is mounted, into a file: a sparse disk image, or packed by zstd.

        zstd: as the path ends in `.zst`, unless it is said. replace: the file may be there already. An open file
        is written from its beginning to its end. Returns the digest of the image (docs/VSF.md). Raises
        FailedPrecondition (in use as a raw disk), LimitExceeded, InternalError, OSError; there is no file then.
        """
        return await transfers.export_to(
            self._volumes._connection, self.ref, target, zstd=zstd, replace=bool(replace), progress=progress
        )


class AsyncCopiedVolumes:
    """The methods of all volumes that copies are made by."""

    _connection: Connection

    async def import_from(
        self,
        name: str,
        source: volume_transfers.PathLike | volume_transfers.Readable,
        *,
        owner: "Owner" = None,
        on_destroy: str = "delete",
        overcommit: bool = False,
        trusted: bool = False,
        as_is: bool = False,
        request_id: str | None = None,
        progress: volume_transfers.Progress = lambda done, size: None,
        skipped: Callable[[int], object] = lambda count: None,
    ) -> "AsyncVolume":
        """Make a volume of a file: a disk image, one filesystem, or either packed by zstd; or of an open file.

        What is in it is copied into filesystems of the service's own, unless one of these is said: trusted, its bytes
        are kept, and the host's kernel may mount them, which only callers of the host may say; as_is, they are kept for
        a raw disk, and not mounted. skipped: is given how many device nodes and the like were left out of the copy.
        Raises InvalidArgument (no usable image, or damaged, or of a type that cannot be copied), PermissionDenied,
        AlreadyExists, LimitExceeded, OSError; there is no volume then.
        """
        from sysproc_client.aio.volumes import AsyncVolume  # noqa: PLC0415 - which has this class as its base

        header = requests.import_header(
            name,
            owner=owner,
            on_destroy=on_destroy,
            overcommit=overcommit,
            trusted=trusted,
            as_is=as_is,
            request_id=request_id,
        )
        imported = await transfers.import_from(self._connection, header, source, progress)
        if imported.skipped:
            skipped(imported.skipped)
        return AsyncVolume(cast("AsyncVolumes", self), imported.volume)

    async def _clone(self, request: service.CloneVolumeRequest) -> "AsyncVolume":
        from sysproc_client.aio.volumes import AsyncVolume  # noqa: PLC0415 - as above

        answer = await self._connection.call(self._connection.stubs.volumes.CloneVolume, request)
        return AsyncVolume(cast("AsyncVolumes", self), answer.volume)

    async def _snapshot(self, request: service.SnapshotVolumeRequest) -> "AsyncVolume":
        from sysproc_client.aio.volumes import AsyncVolume  # noqa: PLC0415 - as above

        answer = await self._connection.call(self._connection.stubs.volumes.SnapshotVolume, request)
        return AsyncVolume(cast("AsyncVolumes", self), answer.volume)
