"""Exports and imports of volumes: what is asked for, and pieces in both directions.

The verbs and their values are in `sysproc.volume_exports` and `sysproc.volume_imports`; the order of an import's parts
is in `sysproc.server.volume_transfer_service`.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from nightos.sysproc.v1 import volume_service_pb2 as service
from sysproc.errors import PermissionDenied
from sysproc.server import validate
from sysproc.server.convert.volumes import ON_DESTROY, check_overcommit, volume_to_proto
from sysproc.server.validate import Findings
from sysproc.storage.hierarchy import ContainerRow
from sysproc.storage.vsf.pieces import PIECE_BYTES, Piece
from sysproc.volume_exports import WantedExport
from sysproc.volume_imports import MOST_BYTES, Received, ReceivedPiece, WantedImport, bad_transfer, is_transfer_id

DIGEST_BYTES = 32
ENCODINGS = {
    service.TRANSFER_ENCODING_UNSPECIFIED: False,
    service.TRANSFER_ENCODING_RAW: False,
    service.TRANSFER_ENCODING_ZSTD: True,
}


def export_from_proto(request: service.ExportVolumeRequest, viewer: int | None) -> tuple[str, WantedExport]:
    """Which volume shall be sent, and how."""

    def read(findings: Findings) -> tuple[str, WantedExport]:
        findings.name("volume.name", request.volume.name)
        findings.check(is_transfer_id(request.export_id), "export_id", "is no UUID")
        findings.check(request.encoding in ENCODINGS, "encoding", "is none that there is")
        zstd = ENCODINGS.get(request.encoding, False)
        return request.volume.name, WantedExport(viewer, request.export_id.lower(), request.offset, zstd)

    return validate.valid(read)


def piece_to_proto(piece: Piece, data: bytes) -> service.ExportVolumeResponse:
    """A piece as it is sent."""
    sha256 = hashlib.sha256(data).digest()
    return service.ExportVolumeResponse(
        piece=service.Piece(offset=piece.offset, size_bytes=piece.size, data=data, sha256=sha256)
    )


def import_from_proto(
    header: service.ImportVolumeRequest.Header, owner: ContainerRow | None, viewer: int | None
) -> WantedImport:
    """What shall be received."""
    check_overcommit(header.overcommit, viewer)
    if header.trusted and viewer is not None:
        raise PermissionDenied(
            "Only the host may vouch for what is imported.",
            resolution="Leave `trusted` out.",
            reason="TRUST",
        )

    def read(findings: Findings) -> WantedImport:
        findings.name("header.name", header.name)
        findings.check(header.on_destroy in ON_DESTROY, "header.on_destroy", "is nothing that can become of a volume")
        findings.check(is_transfer_id(header.request_id), "header.request_id", "is no UUID")
        findings.check(header.encoding in ENCODINGS, "header.encoding", "is none that there is")
        findings.check(not (header.trusted and header.as_is), "header.as_is", "is nothing beside `trusted`")
        findings.check(header.size_bytes <= MOST_BYTES, "header.size_bytes", f"is more than {MOST_BYTES}")
        return WantedImport(
            asked_by=viewer,
            owner_id=None if owner is None else owner.id,
            name=header.name,
            on_destroy=ON_DESTROY.get(header.on_destroy, "delete"),
            overcommit=header.overcommit,
            trusted=header.trusted,
            as_is=header.as_is,
            request_id=header.request_id.lower(),
            zstd=ENCODINGS.get(header.encoding, False),
            size_bytes=header.size_bytes,
        )

    return validate.valid(read)


def piece_from_proto(piece: service.Piece, wanted: WantedImport) -> ReceivedPiece:
    """A piece that has come. Raises InvalidArgument."""
    if len(piece.data) > PIECE_BYTES:
        raise bad_transfer(f"has at most {PIECE_BYTES} bytes in a piece")
    if piece.size_bytes != len(piece.data) and (piece.data or wanted.zstd):
        raise bad_transfer("says of each piece how many bytes it is")
    if not 0 < piece.size_bytes <= MOST_BYTES:
        raise bad_transfer("has no empty piece, and none larger than a volume")
    return ReceivedPiece(piece.offset, piece.size_bytes, piece.data, piece.sha256)


def import_update_to_proto(update: Mapping[str, Any] | Received) -> service.ImportVolumeResponse:
    """How far the copy of what was received is, or what it has become."""
    if isinstance(update, Received):
        volume = volume_to_proto(update.volume)
        imported = service.ImportVolumeResponse.Imported(volume=volume, digest=update.digest, skipped=update.skipped)
        return service.ImportVolumeResponse(imported=imported)
    progress = service.ImportVolumeResponse.Progress(copied_bytes=update["bytes"], entries=update["entries"])
    return service.ImportVolumeResponse(progress=progress)


def trailer_from_proto(trailer: service.ImportVolumeRequest.Trailer) -> tuple[int, bytes]:
    """Size and digest; 0 and empty where they are not known. Raises InvalidArgument."""
    if len(trailer.digest) not in (0, DIGEST_BYTES):
        raise bad_transfer(f"ends with a digest of {DIGEST_BYTES} bytes, or none")
    return trailer.size_bytes, trailer.digest
