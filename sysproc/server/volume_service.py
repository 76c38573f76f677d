"""VolumeService: each method is proto in, one verb, proto out.

What a method means is said in `proto/nightos/sysproc/v1/volume_service.proto`; the verbs are in `sysproc.volumes`.
Which container is named as the owner was settled before (`sysproc.server.interceptor`).
"""

from nightos.sysproc.v1 import volume_service_pb2 as pb
from sysproc.server.call import Call
from sysproc.server.convert import volumes as convert
from sysproc.server.starts import Starts
from sysproc.volumes import Volumes


class VolumeService:
    """The servicer of VolumeService."""

    def __init__(self, volumes: Volumes, starts: Starts) -> None:
        """starts: what formats and copies waits its turn there, beside what is started."""
        self._volumes, self._starts = volumes, starts

    async def CreateVolume(self, request: pb.CreateVolumeRequest, call: Call) -> pb.CreateVolumeResponse:
        """See the proto."""
        wanted = convert.wanted_from_proto(request, call.target, call.viewer)
        if request.validate_only:
            return pb.CreateVolumeResponse(volume=convert.new_to_proto(await self._volumes.validate(wanted)))
        async with self._starts.turn(call.caller.container_id):
            row = await self._volumes.create(wanted, call.key(request))
        return pb.CreateVolumeResponse(volume=convert.volume_to_proto(row))

    async def GetVolume(self, request: pb.GetVolumeRequest, call: Call) -> pb.GetVolumeResponse:
        """See the proto."""
        row = await self._volumes.get(call.target, convert.name_from_proto(request.volume))
        return pb.GetVolumeResponse(volume=convert.volume_to_proto(row))

    async def ListVolumes(self, request: pb.ListVolumesRequest, call: Call) -> pb.ListVolumesResponse:
        """See the proto."""
        page = await self._volumes.list(call.target, *convert.page_from_proto(request))
        return convert.page_to_proto(page)

    async def GrowVolume(self, request: pb.GrowVolumeRequest, call: Call) -> pb.GrowVolumeResponse:
        """See the proto."""
        name, size_bytes = convert.growth_from_proto(request)
        row = await self._volumes.get(call.target, name)
        async with self._starts.turn(call.caller.container_id):
            row = await self._volumes.grow(row, size_bytes, call.viewer)
        return pb.GrowVolumeResponse(volume=convert.volume_to_proto(row))

    async def DeleteVolume(self, request: pb.DeleteVolumeRequest, call: Call) -> pb.DeleteVolumeResponse:
        """See the proto."""
        name = convert.deletion_from_proto(request)
        if not call.answered:
            row = await self._volumes.get(call.target, name)
            await self._volumes.delete(row, call.key(request))
        return pb.DeleteVolumeResponse()
