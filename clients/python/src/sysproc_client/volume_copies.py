"""What can be done with a volume that makes another thing of it: a clone, a snapshot, a file.

A part of `sysproc_client.volumes.Volume`; how files are written is in `sysproc_client.volume_transfers`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, cast

from nightos.sysproc.v1 import volume_service_pb2 as service
from sysproc_client import volume_transfers
from sysproc_client._core import volume_requests as requests
from sysproc_client._core.volume_facts import VolumeFacts
from sysproc_client.connection import Connection

if TYPE_CHECKING:
    from nightos.sysproc.v1.volume_service_pb2_grpc import VolumeServiceStub
    from sysproc_client.volumes import Owner, Volume, Volumes


class Copied(VolumeFacts):
    """The methods of a volume that copy it."""

    _volumes: "Volumes"

    def clone(
        self,
        name: str,
        *,
        owner: "Owner" = None,
        on_destroy: str = "delete",
        overcommit: bool = False,
        request_id: str | None = None,
    ) -> "Volume":
        """Make another volume of what is in it now, also while it is mounted; of the same owner unless one is said.

        Raises AlreadyExists (the name), FailedPrecondition (in use as a raw disk, damaged), LimitExceeded.
        """
        asked = requests.copy_fields(
            self.ref, name, owner=owner, on_destroy=on_destroy, overcommit=overcommit, request_id=request_id
        )
        return self._volumes._clone(service.CloneVolumeRequest(**asked))

    def snapshot(
        self,
        name: str,
        *,
        owner: "Owner" = None,
        on_destroy: str = "delete",
        overcommit: bool = False,
        request_id: str | None = None,
    ) -> "Volume":
        """The same, and it can only be read, for ever.

        Raises AlreadyExists (the name), FailedPrecondition (in use as a raw disk, damaged), LimitExceeded.
        """
        asked = requests.copy_fields(
            self.ref, name, owner=owner, on_destroy=on_destroy, overcommit=overcommit, request_id=request_id
        )
        return self._volumes._snapshot(service.SnapshotVolumeRequest(**asked))

    def export_to(
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
        connection, stub = self._volumes._connection, self._volumes._stub
        return volume_transfers.export_to(
            connection, stub, self.ref, target, zstd=zstd, replace=bool(replace), progress=progress
        )


class CopiedVolumes:
    """The methods of all volumes that copies are made by."""

    _connection: Connection
    _stub: "VolumeServiceStub"

    def import_from(
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
    ) -> "Volume":
        """Make a volume of a file: a disk image, one filesystem, or either packed by zstd; or of an open file.

        What is in it is copied into filesystems of the service's own, unless one of these is said: trusted, its bytes
        are kept, and the host's kernel may mount them, which only callers of the host may say; as_is, they are kept for
        a raw disk, and not mounted. skipped: is given how many device nodes and the like were left out of the copy.
        Raises InvalidArgument (no usable image, or damaged, or of a type that cannot be copied), PermissionDenied,
        AlreadyExists, LimitExceeded, OSError; there is no volume then.
        """
        from sysproc_client.volumes import Volume  # noqa: PLC0415 - which has this class as its base

        header = requests.import_header(
            name,
            owner=owner,
            on_destroy=on_destroy,
            overcommit=overcommit,
            trusted=trusted,
            as_is=as_is,
            request_id=request_id,
        )
        imported = volume_transfers.import_from(self._connection, self._stub, header, source, progress)
        if imported.skipped:
            skipped(imported.skipped)
        return Volume(cast("Volumes", self), imported.volume)

    def _clone(self, request: service.CloneVolumeRequest) -> "Volume":
        from sysproc_client.volumes import Volume  # noqa: PLC0415 - as above

        return Volume(cast("Volumes", self), self._connection.call(self._stub.CloneVolume, request).volume)

    def _snapshot(self, request: service.SnapshotVolumeRequest) -> "Volume":
        from sysproc_client.volumes import Volume  # noqa: PLC0415 - as above

        return Volume(cast("Volumes", self), self._connection.call(self._stub.SnapshotVolume, request).volume)
