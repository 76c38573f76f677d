"""What is asked for about volumes, checked and written as messages: the same for every shell.

Each raises InvalidArgument for what no message can hold. The calls are made by `sysproc_client.volumes` and
`sysproc_client.aio.volumes`.
"""

import os
import uuid
from collections.abc import Sequence
from typing import Any

from nightos.sysproc.v1 import volume_pb2 as pb
from nightos.sysproc.v1 import volume_service_pb2 as service
from nightos.sysproc.v1.ref_pb2 import ContainerRef
from sysproc_client._core.container_facts import container_ref
from sysproc_client._core.values import bad, reference, size_bytes, text

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
# A passphrase, which is taken as UTF-8, or what is in a key file, byte by byte.
Secret = str | bytes | None


# -- requests


def create_request(
    name: object,
    *,
    size: object,
    fs: object,
    filesystems: Sequence[Wanted],
    compress: object,
    owner: object,
    on_destroy: object,
    overcommit: object,
    encrypt: object,
    secret: Secret,
    validate_only: object,
    request_id: object,
) -> service.CreateVolumeRequest:
    """Of a volume that is written."""
    if fs and filesystems:
        raise bad(fs, "type beside several filesystems", "Say the type of each of them instead.")
    wanted = pb.Volume(
        name=text(name, "name"),
        size_bytes=0 if size is None else size_bytes(size),
        filesystems=[filesystem(*one) for one in filesystems] or [filesystem("", fs, compress=compress)],
        on_destroy=policy_number(on_destroy),
        encryption=encryption_number(encrypt),
    )
    return service.CreateVolumeRequest(
        owner=owner_ref(owner),
        volume=wanted,
        request_id=text(request_id or str(uuid.uuid4()), "request_id"),
        validate_only=bool(validate_only),
        overcommit=bool(overcommit),
        secret=secret_bytes(secret),
    )


def packing_header(
    name: object, *, fs: object, compress: object, label: object, owner: object, on_destroy: object, overcommit: object
) -> service.CreateVolumeFromRequest.Header:
    """Of a volume that is made of an archive."""
    wanted = pb.Volume(
        name=text(name, "name"),
        filesystems=[filesystem(label, fs, compress=compress)],
        on_destroy=policy_number(on_destroy),
    )
    return service.CreateVolumeFromRequest.Header(owner=owner_ref(owner), volume=wanted, overcommit=bool(overcommit))


def import_header(
    name: object,
    *,
    owner: object,
    on_destroy: object,
    overcommit: object,
    trusted: object,
    as_is: object,
    request_id: object,
) -> service.ImportVolumeRequest.Header:
    """Of a volume that is made of an image."""
    return service.ImportVolumeRequest.Header(
        owner=owner_ref(owner),
        name=text(name, "name"),
        on_destroy=policy_number(on_destroy),
        overcommit=bool(overcommit),
        trusted=bool(trusted),
        as_is=bool(as_is),
        request_id=text(request_id or str(uuid.uuid4()), "request_id"),
    )


def copy_fields(
    volume: pb.VolumeRef, name: object, *, owner: object, on_destroy: object, overcommit: object, request_id: object
) -> dict[str, Any]:
    """What is asked of a copy. The host is named by its id: what is absent is the caller's own container."""
    return {
        "volume": volume,
        "owner": owner_ref(owner) or ContainerRef(id=volume.owner.id),
        "name": text(name, "name"),
        "on_destroy": policy_number(on_destroy),
        "request_id": text(request_id or str(uuid.uuid4()), "request_id"),
        "overcommit": bool(overcommit),
    }


def mount_request(
    volume: pb.VolumeRef,
    container: object,
    path: str | bytes,
    *,
    filesystem: object,
    read_only: object,
    suid: object,
    noexec: object,
    exclusive: object,
    direct_io: object,
    secret: Secret,
) -> service.MountVolumeRequest:
    """Of a mount in a container."""
    return service.MountVolumeRequest(
        container=owner_ref(container),
        volume=volume,
        filesystem=text(filesystem, "filesystem"),
        path=os.fsencode(path),
        read_only=bool(read_only),
        suid=bool(suid),
        noexec=bool(noexec),
        secret=secret_bytes(secret),
        exclusive=bool(exclusive),
        direct_io=bool(direct_io),
    )


def unmount_request(container: object, path: str | bytes, *, force: object) -> service.UnmountVolumeRequest:
    """Of what is mounted at a path; the container by itself, its name, or as a request names it."""
    ref = container if isinstance(container, ContainerRef) else owner_ref(container)
    return service.UnmountVolumeRequest(container=ref, path=os.fsencode(path), force=bool(force))


def attach_request(
    volume: pb.VolumeRef, container: object, *, filesystem: object, read_only: object
) -> service.AttachVolumeRequest:
    """Of a raw disk."""
    return service.AttachVolumeRequest(
        container=owner_ref(container),
        volume=volume,
        filesystem=text(filesystem, "filesystem"),
        read_only=bool(read_only),
    )


def detach_request(
    volume: pb.VolumeRef, container: object, *, filesystem: object, force: object
) -> service.DetachVolumeRequest:
    """Of a raw disk that is taken away."""
    return service.DetachVolumeRequest(
        container=owner_ref(container), volume=volume, filesystem=text(filesystem, "filesystem"), force=bool(force)
    )


def keys_request(
    volume: pb.VolumeRef,
    change: service.VolumeKeyChange.ValueType,
    secret: Secret,
    new: Secret = None,
    slot: int | None = None,
) -> service.ChangeVolumeKeysRequest:
    """Of another set of keys."""
    return service.ChangeVolumeKeysRequest(
        volume=volume, change=change, secret=secret_bytes(secret), new_secret=secret_bytes(new), slot=slot
    )


# -- parts of them


def volume_ref(name: object, owner: object = None) -> pb.VolumeRef:
    """`NAME`, or `OWNER/NAME` where no owner is said."""
    written = text(name, "name of a volume")
    above, _, own = written.rpartition("/")
    if above and owner is None:
        return pb.VolumeRef(owner=reference(above), name=own)
    return pb.VolumeRef(owner=owner_ref(owner), name=written)


def owner_ref(owner: object) -> ContainerRef | None:
    """A container that owns volumes; None is left to the service."""
    return None if owner is None else container_ref(owner)


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
