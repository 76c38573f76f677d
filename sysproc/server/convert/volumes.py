"""Volumes: what is asked for, what there is.

The verbs and their values are in `sysproc.volumes`, the row of a volume in `sysproc.storage.volumes`; how partitions
are laid out is in `sysproc.storage.vsf.layout`.
"""

import re
from collections.abc import Mapping, Sequence

from nightos.sysproc.v1 import volume_pb2 as pb
from nightos.sysproc.v1 import volume_service_pb2 as service
from sysproc.compression import wrong
from sysproc.encrypted_files import HEADER_BYTES
from sysproc.errors import PermissionDenied
from sysproc.ids import from_hex
from sysproc.server import validate
from sysproc.server.convert import secrets
from sysproc.server.convert.basics import page_size, timestamp
from sysproc.server.validate import MIB, Findings
from sysproc.storage import volumes as recorded
from sysproc.storage.hierarchy import ContainerRow
from sysproc.storage.volumes import NewVolume, Page, SnapshotOf, VolumeRow
from sysproc.storage.vsf.layout import TABLES_BYTES, aligned, least_disk_bytes
from sysproc.volume_keys import LockState
from sysproc.volume_mounts import Attachment, WantedMount
from sysproc.volumes import Wanted, WantedFilesystem

DEFAULT_LABEL = "data"
MOST_FILESYSTEMS = 16
VOLUME_BYTES = (10 * MIB, 2**44)
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,35}")

TYPES = {
    pb.FILESYSTEM_TYPE_UNSPECIFIED: "ext4",
    pb.FILESYSTEM_TYPE_EXT4: "ext4",
    pb.FILESYSTEM_TYPE_BTRFS: "btrfs",
    pb.FILESYSTEM_TYPE_XFS: "xfs",
}
# Not made empty, but of what is to be in them.
PACKED_TYPES = {pb.FILESYSTEM_TYPE_EROFS: "erofs", pb.FILESYSTEM_TYPE_SQUASHFS: "squashfs"}
TYPE_NAMES = {**TYPES, **PACKED_TYPES}
TYPE_NUMBERS = {name: number for number, name in TYPE_NAMES.items()}
# What mkfs refuses, and ext4 below which it has no journal.
LEAST_BYTES = {"ext4": 8 * MIB, "btrfs": 109 * MIB, "xfs": 300 * MIB}
LABEL_BYTES = {"ext4": 16, "btrfs": 36, "xfs": 12}

ON_DESTROY = {
    pb.VOLUME_ON_DESTROY_UNSPECIFIED: "delete",
    pb.VOLUME_ON_DESTROY_DELETE: "delete",
    pb.VOLUME_ON_DESTROY_REPARENT: "reparent",
}
ENCRYPTION = {
    pb.VOLUME_ENCRYPTION_UNSPECIFIED: recorded.NONE,
    pb.VOLUME_ENCRYPTION_NONE: recorded.NONE,
    pb.VOLUME_ENCRYPTION_FILESYSTEMS: recorded.FILESYSTEMS,
    pb.VOLUME_ENCRYPTION_WHOLE: recorded.WHOLE,
}
ENCRYPTION_NUMBERS = {name: number for number, name in ENCRYPTION.items()}

ORIGIN_NUMBERS = {
    recorded.MADE: pb.VOLUME_ORIGIN_MADE,
    recorded.TRUSTED: pb.VOLUME_ORIGIN_TRUSTED,
    recorded.FOREIGN: pb.VOLUME_ORIGIN_FOREIGN,
}
ON_DESTROY_NUMBERS = {name: number for number, name in ON_DESTROY.items()}


# -- requests


def wanted_from_proto(request: service.CreateVolumeRequest, owner: ContainerRow | None, viewer: int | None) -> Wanted:
    """The volume that is asked for, of a container or the host, by a caller in `viewer` (None: the host)."""
    check_overcommit(request.overcommit, viewer)
    return validate.valid(lambda findings: read_wanted(request, owner, viewer, findings))


def check_overcommit(overcommit: bool, viewer: int | None) -> None:
    """Raise PermissionDenied for a promise that is not the caller's to make."""
    if overcommit and viewer is not None:
        raise PermissionDenied(
            "Only the host may promise more storage than there is.",
            resolution="Leave `overcommit` out.",
            reason="OVERCOMMIT",
        )


def read_wanted(
    request: service.CreateVolumeRequest, owner: ContainerRow | None, viewer: int | None, findings: Findings
) -> Wanted:
    """The same, with what is wrong collected."""
    asked = request.volume
    findings.name("volume.name", asked.name)
    findings.check(asked.on_destroy in ON_DESTROY, "volume.on_destroy", "is nothing that can become of a volume")
    findings.request_id("request_id", request.request_id)
    encryption = ENCRYPTION.get(asked.encryption, "")
    findings.check(encryption != "", "volume.encryption", "is nothing that can be encrypted")
    size_bytes, filesystems = layout_from_proto(asked, encryption, findings)
    return Wanted(
        asked_by=viewer,
        owner_id=None if owner is None else owner.id,
        name=asked.name,
        size_bytes=size_bytes,
        filesystems=filesystems,
        on_destroy=ON_DESTROY.get(asked.on_destroy, "delete"),
        overcommit=request.overcommit,
        encryption=encryption,
        secret=secrets.secret_of_new(request, encryption, findings),
    )


def layout_from_proto(
    asked: pb.Volume, encryption: str, findings: Findings
) -> tuple[int, tuple[WantedFilesystem, ...]]:
    """The size of the file, and its filesystems, each with its size; what was left open is decided here."""
    messages = list(asked.filesystems) or [pb.Filesystem()]
    if len(messages) > MOST_FILESYSTEMS:
        findings.add("volume.filesystems", f"are {len(messages)}: at most {MOST_FILESYSTEMS}")
        return 0, ()
    whole = HEADER_BYTES if encryption == recorded.WHOLE else 0
    each = HEADER_BYTES if encryption == recorded.FILESYSTEMS else 0
    sizes = sizes_from_proto(asked, messages, whole, findings)
    filesystems = [
        filesystem_from_proto(message, size, each, f"volume.filesystems[{at}]", findings)
        for at, (message, size) in enumerate(zip(messages, sizes, strict=True))
    ]
    labels = [one.label for one in filesystems]
    for at, label in enumerate(labels):
        findings.check(label not in labels[:at], f"volume.filesystems[{at}].label", f"is there twice: {label[:36]!r}")
    return aligned(asked.size_bytes) or whole + least_disk_bytes(sizes), tuple(filesystems)


def sizes_from_proto(asked: pb.Volume, messages: Sequence[pb.Filesystem], header: int, findings: Findings) -> list[int]:
    """The size of each filesystem, of the last perhaps what is left. header: what is in front of the table."""
    sizes = [aligned(one.size_bytes) for one in messages]
    for at, size in enumerate(sizes[:-1]):
        findings.check(size > 0, f"volume.filesystems[{at}].size_bytes", "is 0: only the last one takes what is left")
    if not sizes[-1] and not asked.size_bytes:
        findings.add("volume.size_bytes", "is 0: say how large the volume shall be, or each of its filesystems")
    size = aligned(asked.size_bytes) or header + least_disk_bytes(sizes)
    findings.number("volume.size_bytes", size, VOLUME_BYTES)
    if not sizes[-1]:
        sizes[-1] = max(0, size - header - TABLES_BYTES - sum(sizes))
    least = header + least_disk_bytes(sizes)
    findings.check(least <= size, "volume.size_bytes", f"is {size}: these filesystems need {least}")
    return sizes


def filesystem_from_proto(
    message: pb.Filesystem, size: int, header: int, field: str, findings: Findings
) -> WantedFilesystem:
    """One filesystem of this size, of which an encrypted one's header takes a part."""
    kind, label = TYPES.get(message.type, ""), message.label or DEFAULT_LABEL
    findings.check(kind != "", f"{field}.type", "is no type of a filesystem that can be made empty")
    good = LABEL.fullmatch(label) is not None
    findings.check(good, f"{field}.label", "is no label: 1 to 36 letters, digits, `.`, `_`, `-`, the first no sign")
    if kind:
        most, least = LABEL_BYTES[kind], LEAST_BYTES[kind] + header
        findings.check(not good or len(label) <= most, f"{field}.label", f"is longer than {kind} can have: {most}")
        findings.check(size >= least, f"{field}.size_bytes", f"is {size}: {kind} needs {least} at least")
        check_compression(kind, message.compression, f"{field}.compression", findings)
    return WantedFilesystem(label, kind, size, message.compression)


def check_compression(kind: str, compression: str, field: str, findings: Findings) -> None:
    """Find what is wrong with how a filesystem of this type shall be compressed; empty is never wrong."""
    if compression and (why := wrong(kind, compression)):
        findings.add(field, why)


def name_from_proto(ref: pb.VolumeRef) -> str:
    """What the volume is called."""
    validate.valid(lambda findings: findings.name("volume.name", ref.name))
    return ref.name


def growth_from_proto(request: service.GrowVolumeRequest | service.ShrinkVolumeRequest) -> tuple[str, int]:
    """Which volume shall have another size, and what size."""

    def read(findings: Findings) -> tuple[str, int]:
        size = aligned(request.size_bytes)
        findings.name("volume.name", request.volume.name)
        findings.number("size_bytes", size, VOLUME_BYTES)
        return request.volume.name, size

    return validate.valid(read)


def deletion_from_proto(request: service.DeleteVolumeRequest) -> str:
    """Which volume shall go."""

    def read(findings: Findings) -> str:
        findings.name("volume.name", request.volume.name)
        findings.request_id("request_id", request.request_id)
        return request.volume.name

    return validate.valid(read)


def mount_from_proto(request: service.MountVolumeRequest) -> tuple[str, WantedMount]:
    """Which volume shall be mounted, and how."""

    def read(findings: Findings) -> tuple[str, WantedMount]:
        findings.name("volume.name", request.volume.name)
        findings.path("path", request.path)
        findings.check(b".." not in request.path.split(b"/"), "path", "has a `..`: say where it leads")
        wanted = WantedMount(
            filesystem=request.filesystem,
            path=request.path,
            read_only=request.read_only,
            suid=request.suid,
            noexec=request.noexec,
            exclusive=request.exclusive,
            direct_io=request.direct_io,
        )
        return request.volume.name, wanted

    return validate.valid(read)


def raw_from_proto(request: service.AttachVolumeRequest | service.DetachVolumeRequest) -> tuple[str, str]:
    """Which volume, and which of its filesystems."""
    return name_from_proto(request.volume), request.filesystem


def unmount_from_proto(request: service.UnmountVolumeRequest) -> bytes:
    """Where a volume shall be unmounted."""
    validate.valid(lambda findings: findings.path("path", request.path))
    return request.path


def page_from_proto(request: service.ListVolumesRequest) -> tuple[int, str]:
    """How many volumes are asked for, and after which."""
    return page_size(request.page_size), request.page_token


# -- answers


def volume_to_proto(
    row: VolumeRow, attachments: Sequence[Attachment] = (), state: LockState | None = None
) -> pb.Volume:
    """A volume as the API shows it."""
    volume = _to_proto(row, row.created_at)
    if state is not None:
        secrets.add_state(volume, state)
    volume.attached_to.extend(_attachment_to_proto(one) for one in attachments)
    return volume


def _attachment_to_proto(one: Attachment) -> pb.Attachment:
    return pb.Attachment(
        container_id=one.container_id,
        path=one.path,
        filesystem=one.filesystem,
        read_only=one.read_only,
        exclusive=one.exclusive,
        direct_io=one.direct_io,
        raw=one.raw,
    )


def new_to_proto(new: NewVolume) -> pb.Volume:
    """A volume that would be made: nobody knows the UUIDs that it would have."""
    would = _to_proto(new, None)
    for one in would.filesystems:
        one.ClearField("uuid")
    return would


def _to_proto(row: VolumeRow | NewVolume, created_at: float | None) -> pb.Volume:
    return pb.Volume(
        name=row.name,
        owner_id=row.owner_id or 0,
        size_bytes=row.size_bytes,
        filesystems=[_filesystem_to_proto(row, at) for at in range(len(row.filesystems))],
        on_destroy=ON_DESTROY_NUMBERS[row.on_destroy],
        create_time=timestamp(created_at),
        encryption=ENCRYPTION_NUMBERS[row.encryption],
        origin=ORIGIN_NUMBERS[row.origin],
        snapshot_of=None if row.snapshot is None else _snapshot_to_proto(row.snapshot),
    )


def _snapshot_to_proto(snapshot: SnapshotOf) -> pb.SnapshotOf:
    owner = from_hex(snapshot.owner_id) if snapshot.owner_id else 0
    return pb.SnapshotOf(name=snapshot.name, owner_id=owner, time=timestamp(snapshot.at))


def _filesystem_to_proto(row: VolumeRow | NewVolume, at: int) -> pb.Filesystem:
    one = row.filesystems[at]
    return pb.Filesystem(
        label=one.label,
        type=TYPE_NUMBERS.get(one.type, pb.FILESYSTEM_TYPE_UNSPECIFIED),
        size_bytes=one.size_bytes,
        uuid=one.uuid,
        compression=one.compression,
        encrypted=recorded.encrypts(row, at),
    )


def page_to_proto(
    page: Page, attachments: Mapping[int, Sequence[Attachment]], states: Mapping[int, LockState]
) -> service.ListVolumesResponse:
    """One page of a list."""
    volumes = [volume_to_proto(row, attachments[row.id], states[row.id]) for row in page.volumes]
    return service.ListVolumesResponse(volumes=volumes, next_page_token=page.next_token)
