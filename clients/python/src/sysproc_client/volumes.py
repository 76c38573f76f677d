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
from datetime import datetime
from typing import TYPE_CHECKING

from nightos.sysproc.v1 import volume_pb2 as pb
from nightos.sysproc.v1 import volume_service_pb2 as service
from nightos.sysproc.v1.ref_pb2 import ContainerRef
from sysproc_client._core.values import bad, reference, size_bytes, text, to_hex
from sysproc_client.connection import Connection
from sysproc_client.container import Container, as_datetime
from sysproc_client.volume_checks import Checked, checked
from sysproc_client.volume_copies import Copied, CopiedVolumes
from sysproc_client.volume_packing import Progress, Source, packed

if TYPE_CHECKING:
    from nightos.sysproc.v1.volume_service_pb2_grpc import VolumeServiceStub

PAGE = 1000
TYPES = {
    "": pb.FILESYSTEM_TYPE_UNSPECIFIED,
    "ext4": pb.FILESYSTEM_TYPE_EXT4,
    "btrfs": pb.FILESYSTEM_TYPE_BTRFS,
    "xfs": pb.FILESYSTEM_TYPE_XFS,
    "erofs": pb.FILESYSTEM_TYPE_EROFS,
    "squashfs": pb.FILESYSTEM_TYPE_SQUASHFS,
}
TYPE_NAMES = {number: name for name, number in TYPES.items()}
ON_DESTROY = {"delete": pb.VOLUME_ON_DESTROY_DELETE, "reparent": pb.VOLUME_ON_DESTROY_REPARENT}
ON_DESTROY_NAMES = {number: name for name, number in ON_DESTROY.items()}
ORIGIN_NAMES = {
    pb.VOLUME_ORIGIN_MADE: "made",
    pb.VOLUME_ORIGIN_TRUSTED: "trusted",
    pb.VOLUME_ORIGIN_FOREIGN: "foreign",
}

ENCRYPTIONS = {
    "": pb.VOLUME_ENCRYPTION_UNSPECIFIED,
    "fs": pb.VOLUME_ENCRYPTION_FILESYSTEMS,
    "whole": pb.VOLUME_ENCRYPTION_WHOLE,
}
ENCRYPTION_NAMES = {
    pb.VOLUME_ENCRYPTION_FILESYSTEMS: "fs",
    pb.VOLUME_ENCRYPTION_WHOLE: "whole",
}

# Label, type and size of a filesystem; size None, of the last one: what is left.
Wanted = tuple[str, str, int | str | None]
Owner = str | Container | None
# A passphrase, which is taken as UTF-8, or what is in a key file, byte by byte.
Secret = str | bytes | None


class Volume(Copied):
    """One volume, as it was when it was last read."""

    def __init__(self, volumes: "Volumes", message: pb.Volume) -> None:
        self._volumes, self.message = volumes, message

    def __repr__(self) -> str:
        return f"<Volume {self.name} of {self.owner_id or 'the host'}>"

    @property
    def name(self) -> str:
        """Unique among those of its owner."""
        return self.message.name

    @property
    def owner_id(self) -> str:
        """The container that it belongs to: 16 hex digits; empty for the host."""
        return to_hex(self.message.owner_id) if self.message.owner_id else ""

    @property
    def size(self) -> int:
        """Of the whole file, in bytes."""
        return self.message.size_bytes

    @property
    def filesystems(self) -> Sequence[pb.Filesystem]:
        """What is in it, in the order of its partitions."""
        return self.message.filesystems

    @property
    def on_destroy(self) -> str:
        """What becomes of it when its owner is destroyed: delete or reparent."""
        return ON_DESTROY_NAMES.get(self.message.on_destroy, "unknown")

    @property
    def origin(self) -> str:
        """Where what is in it comes from: made (by the service), trusted (by the host), foreign (is not mounted)."""
        return ORIGIN_NAMES.get(self.message.origin, "unknown")

    @property
    def encryption(self) -> str:
        """`fs`: each filesystem by itself; `whole`: all of its file; empty: it is not encrypted."""
        return ENCRYPTION_NAMES.get(self.message.encryption, "")

    @property
    def unlocked(self) -> bool:
        """It is encrypted, and was open when it was read: mounted somewhere."""
        return self.message.unlocked

    @property
    def broken(self) -> bool:
        """It is mounted, but what decrypts it was killed: lock it by force, and mount it again."""
        return self.message.broken

    @property
    def key_slots(self) -> dict[str, Sequence[int]]:
        """The numbers of the keys that open each filesystem, by its label; of a volume that was read by itself."""
        return {one.label: list(one.key_slots) for one in self.filesystems}

    @property
    def created(self) -> datetime:
        """When it was created, in UTC."""
        return as_datetime(self.message.create_time)

    @property
    def attached_to(self) -> Sequence[pb.Attachment]:
        """Where it was mounted when it was read."""
        return self.message.attached_to

    @property
    def snapshot_of(self) -> pb.SnapshotOf | None:
        """Of a snapshot, what it shows and of when; None of others."""
        return self.message.snapshot_of if self.message.HasField("snapshot_of") else None

    @property
    def ref(self) -> pb.VolumeRef:
        """How requests name it."""
        owner = ContainerRef(id=self.message.owner_id) if self.message.owner_id else None
        return pb.VolumeRef(owner=owner, name=self.name)

    def refresh(self) -> "Volume":
        """Read it again."""
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

        force: unmount it everywhere, and end what uses it; otherwise FailedPrecondition says where it is mounted.
        """
        self._volumes._lock(service.LockVolumeRequest(volume=self.ref, force=bool(force)))

    def add_key(self, secret: Secret, new: Secret) -> "Volume":
        """Let another passphrase or key file open it, too, for who knows one. Raises PermissionDenied (a wrong one)."""
        return self._change_keys(service.VOLUME_KEY_CHANGE_ADD, secret, new)

    def change_key(self, secret: Secret, new: Secret) -> "Volume":
        """Let another passphrase or key file open it instead of this one; nothing in it is written anew."""
        return self._change_keys(service.VOLUME_KEY_CHANGE_REPLACE, secret, new)

    def remove_key(self, secret: Secret, *, slot: int | None = None) -> "Volume":
        """Let this one open it no more; or the key of this slot, which may be another. Never the last one."""
        return self._change_keys(service.VOLUME_KEY_CHANGE_REMOVE, secret, None, slot)

    def _change_keys(
        self, change: service.VolumeKeyChange.ValueType, secret: Secret, new: Secret, slot: int | None = None
    ) -> "Volume":
        request = service.ChangeVolumeKeysRequest(
            volume=self.ref, change=change, secret=secret_bytes(secret), new_secret=secret_bytes(new), slot=slot
        )
        self.message = self._volumes._change_keys(request)
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
    ) -> None:
        """Mount it, or one of its filesystems by the label, in a container that runs.

        What is missing of the path is made. exclusive: nobody else mounts it meanwhile. direct_io: past the host's page
        cache. secret: a passphrase (a text is UTF-8) or what is in a key file, of one that is encrypted and not mounted
        anywhere yet.

        Raises InvalidArgument (the path), NotFound, PermissionDenied (neither its owner nor below), FailedPrecondition.
        """
        self._volumes._mount(
            service.MountVolumeRequest(
                container=owner_ref(container),
                volume=self.ref,
                filesystem=text(filesystem, "filesystem"),
                path=os.fsencode(path),
                read_only=bool(read_only),
                suid=bool(suid),
                noexec=bool(noexec),
                secret=secret_bytes(secret),
                exclusive=bool(exclusive),
                direct_io=bool(direct_io),
            )
        )

    def check(self, *, repair: bool = False) -> Iterator[Checked]:
        """Look whether its filesystems are whole, each told of when it is done. Raises FailedPrecondition (in use).

        repair: what is damaged, where that can be done.
        """
        return self._volumes._check(self.ref, repair=repair)

    def attach(self, container: Container | str, *, filesystem: str = "", read_only: bool = False) -> str:
        """Give a container that runs this part of it as a raw disk; the device's path there.

        From now on the kernel mounts it no more, before the host vouches for it. Raises FailedPrecondition (in use).
        """
        request = service.AttachVolumeRequest(
            container=owner_ref(container),
            volume=self.ref,
            filesystem=text(filesystem, "filesystem"),
            read_only=bool(read_only),
        )
        return os.fsdecode(self._volumes._attach(request))

    def detach(self, container: Container | str, *, filesystem: str = "", force: bool = False) -> None:
        """Take the raw disk away again. Raises FailedPrecondition (who has it open); force: those are killed."""
        request = service.DetachVolumeRequest(
            container=owner_ref(container),
            volume=self.ref,
            filesystem=text(filesystem, "filesystem"),
            force=bool(force),
        )
        self._volumes._detach(request)

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
        """
        if fs and filesystems:
            raise bad(fs, "type beside several filesystems", "Say the type of each of them instead.")
        wanted = pb.Volume(
            name=text(name, "name"),
            size_bytes=0 if size is None else size_bytes(size),
            filesystems=[filesystem(*one) for one in filesystems] or [filesystem("", fs, compress=compress)],
            on_destroy=policy_number(on_destroy),
            encryption=encryption_number(encrypt),
        )
        request = service.CreateVolumeRequest(
            owner=owner_ref(owner),
            volume=wanted,
            request_id=text(request_id or str(uuid.uuid4()), "request_id"),
            validate_only=bool(validate_only),
            overcommit=bool(overcommit),
            secret=secret_bytes(secret),
        )
        return Volume(self, self._connection.call(self._stub.CreateVolume, request).volume)

    def get(self, name: str, *, owner: Owner = None) -> Volume:
        """The volume of this name, or `OWNER/NAME`, where the owner is a path of names or an id. Raises NotFound."""
        return Volume(self, self._get(volume_ref(name, owner)))

    def list(self, *, below: Owner = None) -> "builtins.list[Volume]":
        """All volumes that there are, or those of a container and of all below it, oldest first."""
        return [*self._list(below)]

    def _list(self, below: Owner) -> Iterator[Volume]:
        request = service.ListVolumesRequest(below=owner_ref(below), page_size=PAGE)
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
        """Make a read-only volume of a folder, of a tar file (plain or gzip), or of an open one.

        fs: erofs or squashfs. compress: `ALGORITHM[:LEVEL]`, as lz4hc:9, zstd:19. Raises SysprocError, OSError.
        """
        wanted = pb.Volume(
            name=text(name, "name"),
            filesystems=[filesystem(label, fs, compress=compress)],
            on_destroy=policy_number(on_destroy),
        )
        header = service.CreateVolumeFromRequest.Header(
            owner=owner_ref(owner), volume=wanted, overcommit=bool(overcommit)
        )
        method = self._stub.CreateVolumeFrom
        return Volume(self, packed(self._connection, method, header, source, progress).volume)

    def unmount(self, container: Container | str, path: str | bytes, *, force: bool = False) -> None:
        """Take the volume at a path out of a container. Raises NotFound, FailedPrecondition (who uses it).

        force: from wherever it is mounted there; processes that hold a file of it are killed.
        """
        request = service.UnmountVolumeRequest(
            container=owner_ref(container), path=os.fsencode(path), force=bool(force)
        )
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
        request = service.GrowVolumeRequest(volume=ref, size_bytes=size_bytes(size), secret=secret_bytes(secret))
        return self._connection.call(self._stub.GrowVolume, request).volume

    def _check(self, ref: pb.VolumeRef, *, repair: bool) -> Iterator[Checked]:
        request = service.CheckVolumeRequest(volume=ref, repair=bool(repair))
        return checked(self._connection.stream(self._stub.CheckVolume(request)))

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


def volume_ref(name: object, owner: Owner = None) -> pb.VolumeRef:
    """`NAME`, or `OWNER/NAME` where no owner is said."""
    written = text(name, "name of a volume")
    above, _, own = written.rpartition("/")
    if above and owner is None:
        return pb.VolumeRef(owner=reference(above), name=own)
    return pb.VolumeRef(owner=owner_ref(owner), name=written)


def owner_ref(owner: object) -> ContainerRef | None:
    """A container that owns volumes; None is left to the service."""
    if isinstance(owner, Container):
        return owner.ref
    return None if owner is None else reference(owner)


def filesystem(label: object, fstype: object = "", size: object = None, compress: object = "") -> pb.Filesystem:
    """One filesystem of a volume."""
    return pb.Filesystem(
        label=text(label, "label"),
        type=type_number(fstype),
        size_bytes=0 if size is None else size_bytes(size),
        compression=text(compress, "compression"),
    )


def type_number(fstype: object) -> pb.FilesystemType.ValueType:
    """A type by its name."""
    if not isinstance(fstype, str) or fstype not in TYPES:
        raise bad(fstype, "type of a filesystem", "There are ext4, btrfs, xfs, erofs and squashfs.")
    return TYPES[fstype]


def encryption_number(encrypt: object) -> pb.VolumeEncryption.ValueType:
    """What of a volume shall be encrypted."""
    if not isinstance(encrypt, str) or encrypt not in ENCRYPTIONS:
        raise bad(encrypt, "thing that can be encrypted", "There are fs and whole.")
    return ENCRYPTIONS[encrypt]


def secret_bytes(secret: object) -> bytes:
    """A passphrase or key file as it is sent; empty for none. It is in no error."""
    if secret is None or isinstance(secret, bytes):
        return secret or b""
    if not isinstance(secret, str):
        raise bad(type(secret).__name__, "type of a secret", "Give str or bytes.")
    return secret.encode()


def policy_number(on_destroy: object) -> pb.VolumeOnDestroy.ValueType:
    """What becomes of a volume, by its name."""
    if not isinstance(on_destroy, str) or on_destroy not in ON_DESTROY:
        raise bad(on_destroy, "thing that can become of a volume", "There are delete and reparent.")
    return ON_DESTROY[on_destroy]
