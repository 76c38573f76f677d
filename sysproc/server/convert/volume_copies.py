"""Copies of volumes: what is asked for.

The verbs and their values are in `sysproc.volume_copies`; a volume is shown by `sysproc.server.convert.volumes`.
"""

from nightos.sysproc.v1 import volume_service_pb2 as service
from sysproc.server import validate
from sysproc.server.convert.volumes import ON_DESTROY, check_overcommit
from sysproc.server.validate import Findings
from sysproc.storage.hierarchy import ContainerRow
from sysproc.volume_copies import WantedCopy

CopyRequest = service.CloneVolumeRequest | service.SnapshotVolumeRequest


def copy_from_proto(request: CopyRequest, owner: ContainerRow | None, viewer: int | None) -> tuple[str, WantedCopy]:
    """Which volume shall be copied, and what the copy shall be, by a caller in `viewer` (None: the host)."""
    check_overcommit(request.overcommit, viewer)

    def read(findings: Findings) -> tuple[str, WantedCopy]:
        findings.name("volume.name", request.volume.name)
        findings.name("name", request.name)
        findings.check(request.on_destroy in ON_DESTROY, "on_destroy", "is nothing that can become of a volume")
        findings.request_id("request_id", request.request_id)
        wanted = WantedCopy(
            asked_by=viewer,
            owner_id=None if owner is None else owner.id,
            name=request.name,
            on_destroy=ON_DESTROY.get(request.on_destroy, "delete"),
            overcommit=request.overcommit,
            snapshot=isinstance(request, service.SnapshotVolumeRequest),
        )
        return request.volume.name, wanted

    return validate.valid(read)
