"""Volumes: virtual storage files that belong to containers, or to the host.

    with Client() as client:
        data = client.volumes.create("data", size="1G", owner="web")
        data.mount("web", "/srv/data")
        client.volumes.unmount("web", "/srv/data")
        before = data.snapshot("before")
        data.grow("2G")
        safe = client.volumes.create("safe", size="1G", encrypt="fs", secret="a passphrase")
        safe.mount("web", "/srv/safe", secret="a passphrase")
        safe.lock(force=True)
        data.delete()

How they are created, found and named is here; a container is `sysproc_client.container.Container`.
"""

import builtins
import os
import uuid
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from nightos.sysproc.v1 import volume_pb2 as pb
from nightos.sysproc.v1 import volume_service_pb2 as service
from sysproc_client._core import volume_requests as requests
from sysproc_client._core.errors import NotFound
from sysproc_client._core.values import size_bytes
from sysproc_client._core.volume_requests import TYPE_NAMES as TYPE_NAMES
from sysproc_client._core.volume_requests import Secret, Wanted
from sysproc_client._core.volume_requests import volume_ref as volume_ref
from sysproc_client.connection import Connection
from sysproc_client.container import Container
from sysproc_client.volume_checks import Checked, checked
from sysproc_client.volume_copies import Copied, CopiedVolumes
from sysproc_client.volume_mounts import Mount
from sysproc_client.volume_packing import Progress, Source, packed

if TYPE_CHECKING:
    from typing_extensions import Self

    from nightos.sysproc.v1.volume_service_pb2_grpc import VolumeServiceStub

Owner = str | Container | None


class Volume(Copied):
    """One volume, as it was when it was last read. As a context manager it is deleted at the end.

    Besides what is said below, each call raises NotFound, if it is there no more.
    """

    def __init__(self, volumes: "Volumes", message: pb.Volume) -> None:
        super().__init__(message)
        self._volumes = volumes

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        try:
            self.delete()
        except NotFound:
            return  # it is gone already

    def refresh(self) -> "Volume":
        """Read it again. Raises NotFound."""
        self.message = self._volumes._get(self.ref)
        return self

    def grow(self, size: int | str, *, secret: Secret = None) -> "Volume":
        """Make it so large, in bytes or as `2G`; its last filesystem takes what is new. Raises FailedPrecondition.

        secret: of an encrypted one.
        """
        self.message = self._volumes._grow(self.ref, size, secret)
        return self

    def lock(self, *, force: bool = False) -> None:
        """Lock it, if it is encrypted: afterwards it is mounted nowhere, and its key nowhere in memory.

        force: unmount it everywhere, and end what uses it. Raises FailedPrecondition (where it is mounted; it is not
        encrypted).
        """
        self._volumes._lock(service.LockVolumeRequest(volume=self.ref, force=bool(force)))

    def add_key(self, secret: Secret, new: Secret) -> "Volume":
        """Let another passphrase or key file open it, too, for who knows one.

        Raises InvalidArgument (the new one is empty, or too long), PermissionDenied (a wrong one), FailedPrecondition
        (it is not encrypted), LimitExceeded (there is no room for another).
        """
        return self._change_keys(service.VOLUME_KEY_CHANGE_ADD, secret, new)

    def change_key(self, secret: Secret, new: Secret) -> "Volume":
        """Let another passphrase or key file open it instead of this one; nothing in it is written anew.

        Raises what `add_key` raises: both are there for a moment.
        """
        return self._change_keys(service.VOLUME_KEY_CHANGE_REPLACE, secret, new)

    def remove_key(self, secret: Secret, *, slot: int | None = None) -> "Volume":
        """Let this one open it no more; or the key of this slot, which may be another.

        Raises PermissionDenied (a wrong one), NotFound (the slot), FailedPrecondition (the last one; not encrypted).
        """
        return self._change_keys(service.VOLUME_KEY_CHANGE_REMOVE, secret, None, slot)

    def _change_keys(
        self, change: service.VolumeKeyChange.ValueType, secret: Secret, new: Secret = None, slot: int | None = None
    ) -> "Volume":
        self.message = self._volumes._change_keys(requests.keys_request(self.ref, change, secret, new, slot))
        return self

    def shrink(self, size: int | str) -> "Volume":
        """Make it so small, at the cost of its last filesystem. Raises FailedPrecondition (in use; too full; xfs)."""
        self.message = self._volumes._shrink(self.ref, size)
        return self

    def trust(self) -> "Volume":
        """Vouch, as the host, for what is in it: then the kernel mounts it. Raises FailedPrecondition (in use)."""
        self.message = self._volumes._trust(self.ref)
        return self

    def mount(
        self,
        container: Container | str,
        path: str | bytes,
        *,
        filesystem: str = "",
        read_only: bool = False,
        suid: bool = False,
        noexec: bool = False,
        exclusive: bool = False,
        direct_io: bool = False,
        secret: Secret = None,
    ) -> Mount:
        """Mount it, or one of its filesystems by the label, in a container that runs.

        What is missing of the path is made. exclusive: nobody else mounts it meanwhile. direct_io: past the host's page
        cache. secret: a passphrase (a text is UTF-8) or what is in a key file, of one that is encrypted and not mounted
        anywhere yet. As a context manager it is unmounted at the end.

        Raises InvalidArgument (the path), NotFound, PermissionDenied (neither its owner nor below), FailedPrecondition.
        """
        request = requests.mount_request(
            self.ref,
            container,
            path,
            filesystem=filesystem,
            read_only=read_only,
            suid=suid,
            noexec=noexec,
            exclusive=exclusive,
            direct_io=direct_io,
            secret=secret,
        )
        self._volumes._mount(request)
        return Mount(self._volumes, request)

    def check(self, *, repair: bool = False, secret: Secret = None) -> Iterator[Checked]:
        """Look whether its filesystems are whole, each told of when it is done. Raises FailedPrecondition (in use).

        repair: what is damaged, where that can be done. secret: of an encrypted one.
        """
        return self._volumes._check(self.ref, repair=repair, secret=secret)

    def attach(self, container: Container | str, *, filesystem: str = "", read_only: bool = False) -> str:
        """Give a container that runs this part of it as a raw disk; the device's path there.

        From now on the kernel mounts it no more, before the host vouches for it. Raises FailedPrecondition (in use).
        """
        request = requests.attach_request(self.ref, container, filesystem=filesystem, read_only=read_only)
        return os.fsdecode(self._volumes._attach(request))

    def detach(self, container: Container | str, *, filesystem: str = "", force: bool = False) -> None:
        """Take the raw disk away again. Raises FailedPrecondition (who has it open); force: those are killed."""
        self._volumes._detach(requests.detach_request(self.ref, container, filesystem=filesystem, force=force))

    def delete(self) -> None:
        """Delete it and everything in it. Raises FailedPrecondition (in use)."""
        self._volumes._delete(self.ref)


class Volumes(CopiedVolumes):
    """The volumes of a service."""

    def __init__(self, connection: Connection, stub: "VolumeServiceStub") -> None:
        self._connection, self._stub = connection, stub

    def create(
        self,
        name: str,
        *,
        size: int | str | None = None,
        fs: str = "",
        filesystems: Sequence[Wanted] = (),
        compress: str = "",
        owner: Owner = None,
        on_destroy: str = "delete",
        overcommit: bool = False,
        encrypt: str = "",
        secret: Secret = None,
        validate_only: bool = False,
        request_id: str | None = None,
    ) -> Volume:
        """Make a volume: one filesystem of the type `fs` (ext4, btrfs, xfs), or several. Sizes are bytes or `1G`.

        compress: of one of btrfs, `zstd:3`.
        owner: the container whose it will be. on_destroy: delete or reparent. Safe to repeat with the same request_id.
        encrypt: `fs`, each filesystem by itself, or `whole`, all of its file; secret: its first passphrase or key file.
        validate_only: it is only checked; what would be made comes back.

        Raises InvalidArgument, NotFound (the owner), AlreadyExists (the name), PermissionDenied, FailedPrecondition
        (the owner does not live; a tool is missing there), LimitExceeded (of the owner, one above, or the disk).
        """
        request = requests.create_request(
            name,
            size=size,
            fs=fs,
            filesystems=filesystems,
            compress=compress,
            owner=owner,
            on_destroy=on_destroy,
            overcommit=overcommit,
            encrypt=encrypt,
            secret=secret,
            validate_only=validate_only,
            request_id=request_id,
        )
        return Volume(self, self._connection.call(self._stub.CreateVolume, request).volume)

    def get(self, name: str, *, owner: Owner = None) -> Volume:
        """The volume of this name, or `OWNER/NAME`, where the owner is a path of names or an id. Raises NotFound."""
        return Volume(self, self._get(volume_ref(name, owner)))

    def list(self, *, below: Owner = None) -> "builtins.list[Volume]":
        """All volumes that there are, or those of a container and of all below it, oldest first."""
        return [*self._list(below)]

    def _list(self, below: Owner) -> Iterator[Volume]:
        request = service.ListVolumesRequest(below=requests.owner_ref(below), page_size=requests.PAGE)
        while True:
            page = self._connection.call(self._stub.ListVolumes, request)
            yield from (Volume(self, message) for message in page.volumes)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def create_from(
        self,
        name: str,
        source: Source,
        *,
        fs: str = "erofs",
        compress: str = "",
        label: str = "",
        owner: Owner = None,
        on_destroy: str = "delete",
        overcommit: bool = False,
        progress: Progress = lambda _: None,
    ) -> Volume:
        """Make a read-only volume of a folder, of a tar file (plain, gzip, xz, zstd), or of an open one.

        fs: erofs or squashfs. compress: `ALGORITHM[:LEVEL]`, as lz4hc:9, zstd:19. Raises SysprocError, OSError.
        """
        header = requests.packing_header(
            name, fs=fs, compress=compress, label=label, owner=owner, on_destroy=on_destroy, overcommit=overcommit
        )
        method = self._stub.CreateVolumeFrom
        return Volume(self, packed(self._connection, method, header, source, progress).volume)

    def unmount(self, container: Container | str, path: str | bytes, *, force: bool = False) -> None:
        """Take the volume at a path out of a container. Raises NotFound, FailedPrecondition (who uses it).

        force: from wherever it is mounted there; processes that hold a file of it are killed.
        """
        self._unmount(requests.unmount_request(container, path, force=force))

    def _unmount(self, request: service.UnmountVolumeRequest) -> None:
        self._connection.call(self._stub.UnmountVolume, request)

    def _mount(self, request: service.MountVolumeRequest) -> None:
        self._connection.call(self._stub.MountVolume, request)

    def _get(self, ref: pb.VolumeRef) -> pb.Volume:
        return self._connection.call(self._stub.GetVolume, service.GetVolumeRequest(volume=ref)).volume

    def _lock(self, request: service.LockVolumeRequest) -> None:
        self._connection.call(self._stub.LockVolume, request)

    def _change_keys(self, request: service.ChangeVolumeKeysRequest) -> pb.Volume:
        return self._connection.call(self._stub.ChangeVolumeKeys, request).volume

    def _grow(self, ref: pb.VolumeRef, size: int | str, secret: Secret) -> pb.Volume:
        request = service.GrowVolumeRequest(
            volume=ref, size_bytes=size_bytes(size), secret=requests.secret_bytes(secret)
        )
        return self._connection.call(self._stub.GrowVolume, request).volume

    def _check(self, ref: pb.VolumeRef, *, repair: bool, secret: Secret) -> Iterator[Checked]:
        request = service.CheckVolumeRequest(volume=ref, repair=bool(repair), secret=requests.secret_bytes(secret))
        return checked(self._connection.stream(self._connection.begin(self._stub.CheckVolume, request)))

    def _shrink(self, ref: pb.VolumeRef, size: int | str) -> pb.Volume:
        request = service.ShrinkVolumeRequest(volume=ref, size_bytes=size_bytes(size))
        return self._connection.call(self._stub.ShrinkVolume, request).volume

    def _attach(self, request: service.AttachVolumeRequest) -> bytes:
        return self._connection.call(self._stub.AttachVolume, request).path

    def _detach(self, request: service.DetachVolumeRequest) -> None:
        self._connection.call(self._stub.DetachVolume, request)

    def _trust(self, ref: pb.VolumeRef) -> pb.Volume:
        return self._connection.call(self._stub.TrustVolume, service.TrustVolumeRequest(volume=ref)).volume

    def _delete(self, ref: pb.VolumeRef) -> None:
        request = service.DeleteVolumeRequest(volume=ref, request_id=str(uuid.uuid4()))
        self._connection.call(self._stub.DeleteVolume, request)
