"""The methods of VolumeService that copy volumes: each is proto in, one verb, proto out.

The others are in `sysproc.server.volume_service`; the verbs are in `sysproc.volume_copies`.
"""

from nightos.sysproc.v1 import volume_service_pb2 as pb
from sysproc.errors import Internal
from sysproc.server.call import Call
from sysproc.server.convert import volume_copies as convert
from sysproc.server.convert import volumes as convert_volumes
from sysproc.server.starts import Starts
from sysproc.storage.volumes import VolumeRow
from sysproc.volume_copies import VolumeCopies
from sysproc.volumes import Volumes


class VolumeCopyMethods:
    """A part of the servicer of VolumeService."""

    def __init__(self, volumes: Volumes, copies: VolumeCopies, starts: Starts) -> None:
        """starts: what copies waits its turn there."""
        self._volumes, self._copies, self._starts = volumes, copies, starts

    async def CloneVolume(self, request: pb.CloneVolumeRequest, call: Call) -> pb.CloneVolumeResponse:
        """See the proto."""
        return pb.CloneVolumeResponse(volume=convert_volumes.volume_to_proto(await self._copy(request, call)))

    async def SnapshotVolume(self, request: pb.SnapshotVolumeRequest, call: Call) -> pb.SnapshotVolumeResponse:
        """See the proto."""
        return pb.SnapshotVolumeResponse(volume=convert_volumes.volume_to_proto(await self._copy(request, call)))

    async def _copy(self, request: convert.CopyRequest, call: Call) -> VolumeRow:
        key = call.key(request)
        if call.answered:
            return await self._kept(request, call)
        name, wanted = convert.copy_from_proto(request, call.targets["owner"], call.viewer)
        source = await self._volumes.get(call.targets["volume.owner"], name)
        async with self._starts.turn(call.caller.container_id):
            return await self._copies.copy(source, wanted, key)

    async def _kept(self, request: convert.CopyRequest, call: Call) -> VolumeRow:
        row = await self._volumes.kept(call.key(request))
        if row is None:
            raise Internal("The answer that was kept has just gone.", resolution="Ask with another request_id.")
        return row
