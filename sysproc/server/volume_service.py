"""VolumeService: each method is proto in, one verb, proto out.

What a method means is said in `proto/nightos/sysproc/v1/volume_service.proto`; the verbs are in `sysproc.volumes`,
`sysproc.volume_mounts`, `sysproc.volume_checks` and `sysproc.volume_packing`. Which container is named as the owner was
settled before (`sysproc.server.interceptor`).
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, nullcontext

from nightos.sysproc.v1 import volume_service_pb2 as pb
from sysproc.containers import Containers
from sysproc.images import Progress
from sysproc.server.call import Call
from sysproc.server.convert import secrets
from sysproc.server.convert import volume_checks as checks
from sysproc.server.convert import volume_packing as packing
from sysproc.server.convert import volumes as convert
from sysproc.server.starts import Starts
from sysproc.server.upload import Upload, with_progress
from sysproc.volume_checks import VolumeChecks
from sysproc.volume_keys import VolumeKeys
from sysproc.volume_mounts import VolumeMounts
from sysproc.volume_packing import Packed, VolumePacking
from sysproc.volume_raw import RawVolumes
from sysproc.volumes import Volumes


class VolumeService:
    """The servicer of VolumeService."""

    def __init__(
        self,
        containers: Containers,
        volumes: Volumes,
        mounts: VolumeMounts,
        checks: VolumeChecks,
        keys: VolumeKeys,
        raw: RawVolumes,
        packing: VolumePacking,
        starts: Starts,
    ) -> None:
        """starts: what formats, copies, mounts and unlocks waits its turn there, beside what is started."""
        self._containers, self._volumes, self._mounts, self._starts = containers, volumes, mounts, starts
        self._checks, self._keys, self._raw, self._packing = checks, keys, raw, packing

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
        attachments = await self._mounts.attachments([row])
        state = await self._keys.state(row)
        return pb.GetVolumeResponse(volume=convert.volume_to_proto(row, attachments[row.id], state))

    async def ListVolumes(self, request: pb.ListVolumesRequest, call: Call) -> pb.ListVolumesResponse:
        """See the proto."""
        page = await self._volumes.list(call.target, *convert.page_from_proto(request))
        attachments = await self._mounts.attachments(page.volumes)
        return convert.page_to_proto(page, attachments, await self._keys.states(page.volumes))

    async def GrowVolume(self, request: pb.GrowVolumeRequest, call: Call) -> pb.GrowVolumeResponse:
        """See the proto."""
        name, size_bytes = convert.growth_from_proto(request)
        row = await self._volumes.get(call.target, name)
        async with self._starts.turn(call.caller.container_id):
            row = await self._volumes.grow(row, size_bytes, call.viewer, secrets.secret_of(request))
        attachments = await self._mounts.attachments([row])
        return pb.GrowVolumeResponse(volume=convert.volume_to_proto(row, attachments[row.id]))

    async def ShrinkVolume(self, request: pb.ShrinkVolumeRequest, call: Call) -> pb.ShrinkVolumeResponse:
        """See the proto."""
        name, size_bytes = convert.growth_from_proto(request)
        row = await self._volumes.get(call.target, name)
        async with self._starts.turn(call.caller.container_id):
            row = await self._volumes.shrink(row, size_bytes)
        return pb.ShrinkVolumeResponse(volume=convert.volume_to_proto(row))

    async def TrustVolume(self, request: pb.TrustVolumeRequest, call: Call) -> pb.TrustVolumeResponse:
        """See the proto."""
        row = await self._volumes.get(call.target, convert.name_from_proto(request.volume))
        return pb.TrustVolumeResponse(volume=convert.volume_to_proto(await self._volumes.trust(row)))

    async def DeleteVolume(self, request: pb.DeleteVolumeRequest, call: Call) -> pb.DeleteVolumeResponse:
        """See the proto."""
        name = convert.deletion_from_proto(request)
        if not call.answered:
            row = await self._volumes.get(call.target, name)
            await self._volumes.delete(row, call.key(request))
        return pb.DeleteVolumeResponse()

    async def MountVolume(self, request: pb.MountVolumeRequest, call: Call) -> pb.MountVolumeResponse:
        """See the proto."""
        name, wanted = convert.mount_from_proto(request)
        container = await self._containers.running(call.container_named("container"))
        volume = await self._volumes.get(call.targets["volume.owner"], name)
        async with self._starts.turn(call.caller.container_id):
            with secrets.secret_of(request) or nullcontext() as secret:
                await self._mounts.mount(container, volume, wanted, secret)
        return pb.MountVolumeResponse()

    async def LockVolume(self, request: pb.LockVolumeRequest, call: Call) -> pb.LockVolumeResponse:
        """See the proto."""
        row = await self._volumes.get(call.target, convert.name_from_proto(request.volume))
        await self._keys.lock(row, force=request.force)
        return pb.LockVolumeResponse()

    async def ChangeVolumeKeys(self, request: pb.ChangeVolumeKeysRequest, call: Call) -> pb.ChangeVolumeKeysResponse:
        """See the proto."""
        name, change = secrets.change_from_proto(request)
        row = await self._volumes.get(call.target, name)
        async with self._starts.turn(call.caller.container_id):
            await self._keys.change(row, change)
        attachments, state = await self._mounts.attachments([row]), await self._keys.state(row)
        return pb.ChangeVolumeKeysResponse(volume=convert.volume_to_proto(row, attachments[row.id], state))

    async def AttachVolume(self, request: pb.AttachVolumeRequest, call: Call) -> pb.AttachVolumeResponse:
        """See the proto."""
        name, label = convert.raw_from_proto(request)
        container = await self._containers.running(call.container_named("container"))
        volume = await self._volumes.get(call.targets["volume.owner"], name)
        async with self._starts.turn(call.caller.container_id):
            path = await self._raw.attach(container, volume, label, read_only=request.read_only)
        return pb.AttachVolumeResponse(path=path)

    async def DetachVolume(self, request: pb.DetachVolumeRequest, call: Call) -> pb.DetachVolumeResponse:
        """See the proto."""
        name, label = convert.raw_from_proto(request)
        container = await self._containers.running(call.container_named("container"))
        volume = await self._volumes.get(call.targets["volume.owner"], name)
        await self._raw.detach(container, volume, label, force=request.force)
        return pb.DetachVolumeResponse()

    async def UnmountVolume(self, request: pb.UnmountVolumeRequest, call: Call) -> pb.UnmountVolumeResponse:
        """See the proto."""
        path = convert.unmount_from_proto(request)
        container = await self._containers.running(call.container)
        await self._mounts.unmount(container, path, force=request.force)
        return pb.UnmountVolumeResponse()

    async def CreateVolumeFrom(
        self, requests: AsyncIterator[pb.CreateVolumeFromRequest], call: Call
    ) -> AsyncIterator[pb.CreateVolumeFromResponse]:
        """See the proto."""
        upload = Upload(requests)
        wanted = packing.packed_from_proto(await upload.header(), call.target, call.viewer)

        def work(told: Callable[[Progress], None]) -> Awaitable[Packed]:
            return self._packing.create_from(wanted, upload.chunks(), upload.digest, told)

        async with self._starts.turn(call.caller.container_id), aclosing(with_progress(work)) as updates:
            async for update in updates:
                yield packing.update_to_proto(update)

    async def CheckVolume(self, request: pb.CheckVolumeRequest, call: Call) -> AsyncIterator[pb.CheckVolumeResponse]:
        """See the proto."""
        row = await self._volumes.get(call.target, convert.name_from_proto(request.volume))
        async with self._starts.turn(call.caller.container_id):
            with secrets.secret_of(request) or nullcontext() as secret:
                async with aclosing(self._checks.check(row, repair=request.repair, secret=secret)) as found:
                    async for one in found:
                        yield checks.checked_to_proto(one)
