"""Read-only volumes, made of a tar: what is asked for, how far it is. The verb is in `sysproc.volume_packing`.

What all volumes have is read and shown by `sysproc.server.convert.volumes`.
"""

from nightos.sysproc.v1 import volume_pb2 as pb
from nightos.sysproc.v1 import volume_service_pb2 as service
from sysproc.compression import DEFAULTS, READ_ONLY
from sysproc.images import Progress
from sysproc.server import validate
from sysproc.server.convert.volumes import (
    DEFAULT_LABEL,
    LABEL,
    ON_DESTROY,
    TYPE_NAMES,
    check_compression,
    check_overcommit,
    volume_to_proto,
)
from sysproc.server.validate import MIB, Findings
from sysproc.storage.hierarchy import ContainerRow
from sysproc.volume_packing import Packed, WantedPacked
from sysproc.volumes import Wanted, WantedFilesystem


def packed_from_proto(
    header: service.CreateVolumeFromRequest.Header, owner: ContainerRow | None, viewer: int | None
) -> WantedPacked:
    """The volume that is asked for, of a container or the host, by a caller in `viewer` (None: the host)."""
    check_overcommit(header.overcommit, viewer)
    return validate.valid(lambda findings: read_packed(header, owner, viewer, findings))


def read_packed(
    header: service.CreateVolumeFromRequest.Header, owner: ContainerRow | None, viewer: int | None, findings: Findings
) -> WantedPacked:
    """The same, with what is wrong collected. Its size counts as the least until it is known."""
    asked = header.volume
    findings.name("header.volume.name", asked.name)
    good = asked.on_destroy in ON_DESTROY
    findings.check(good, "header.volume.on_destroy", "is nothing that can become of a volume")
    findings.check(not asked.size_bytes, "header.volume.size_bytes", "is what it has to be: leave it out")
    plain = asked.encryption in (pb.VOLUME_ENCRYPTION_UNSPECIFIED, pb.VOLUME_ENCRYPTION_NONE)
    findings.check(plain, "header.volume.encryption", "is not there for what is made of a tar")
    if len(asked.filesystems) != 1:
        findings.add("header.volume.filesystems", f"are {len(asked.filesystems)}: there is one in it")
    field = "header.volume.filesystems[0]"
    message = asked.filesystems[0] if asked.filesystems else None
    kind = TYPE_NAMES.get(message.type, "") if message else ""
    findings.check(
        message is None or kind in READ_ONLY, f"{field}.type", "is none that is made of a tar: erofs, squashfs"
    )
    label = (message.label if message else "") or DEFAULT_LABEL
    findings.check(LABEL.fullmatch(label) is not None, f"{field}.label", "is no label: see Filesystem.label")
    findings.check(not (message and message.size_bytes), f"{field}.size_bytes", "is what it has to be: leave it out")
    compression = (message.compression if message else "") or DEFAULTS.get(kind, "")
    if kind in READ_ONLY:
        check_compression(kind, compression, f"{field}.compression", findings)
    return WantedPacked(
        Wanted(
            asked_by=viewer,
            owner_id=None if owner is None else owner.id,
            name=asked.name,
            size_bytes=MIB,
            filesystems=(WantedFilesystem(label, kind, MIB, compression),),
            on_destroy=ON_DESTROY.get(asked.on_destroy, "delete"),
            overcommit=header.overcommit,
        )
    )


def update_to_proto(update: Progress | Packed) -> service.CreateVolumeFromResponse:
    """How far it is, or what was made."""
    if isinstance(update, Packed):
        volume = volume_to_proto(update.volume)
        created = service.CreateVolumeFromResponse.Created(volume=volume, skipped_devices=update.skipped_devices)
        return service.CreateVolumeFromResponse(created=created)
    progress = service.CreateVolumeFromResponse.Progress(
        received_bytes=update.received_bytes, unpacked_bytes=update.unpacked_bytes, entries=update.entries
    )
    return service.CreateVolumeFromResponse(progress=progress)
