"""ContainerService: each method is proto in, one verb, proto out.

What a method means is said in `proto/nightos/sysproc/v1/container_service.proto`; the verbs are in
`sysproc.containers`. Who may call, and which container is named, was settled before (`sysproc.server.interceptor`).
"""

from collections.abc import AsyncIterator
from dataclasses import replace

from nightos.sysproc.v1 import container_service_pb2 as pb
from nightos.sysproc.v1.container_pb2 import Container
from sysproc.containers import Containers
from sysproc.server.call import Call
from sysproc.server.convert import containers as convert
from sysproc.server.starts import Starts
from sysproc.storage.hierarchy import ContainerRow


class ContainerService:
    """The servicer of ContainerService."""

    def __init__(self, containers: Containers, starts: Starts) -> None:
        self._containers, self._starts = containers, starts

    async def CreateContainer(self, request: pb.CreateContainerRequest, call: Call) -> pb.CreateContainerResponse:
        """See the proto."""
        wanted = convert.wanted_from_proto(request, call.target, call.viewer)
        if request.validate_only:
            return pb.CreateContainerResponse(container=convert.new_to_proto(await self._containers.validate(wanted)))
        async with self._starts.turn(call.caller.container_id):
            row = await self._containers.create(wanted, call.key(request))
        return pb.CreateContainerResponse(container=convert.container_to_proto(row, call.viewer))

    async def GetContainer(self, _: pb.GetContainerRequest, call: Call) -> pb.GetContainerResponse:
        """See the proto."""
        names = await self._containers.names(call.container, call.viewer)
        return pb.GetContainerResponse(container=await self._shown(call.container, call), path="/".join(names) or ".")

    async def ListContainers(self, request: pb.ListContainersRequest, call: Call) -> pb.ListContainersResponse:
        """See the proto."""
        page = await self._containers.list(call.target, convert.listing_from_proto(request))
        rows = await self._containers.as_they_are(page.containers)
        return convert.page_to_proto(replace(page, containers=tuple(rows)), call.viewer)

    async def UpdateContainer(self, request: pb.UpdateContainerRequest, call: Call) -> pb.UpdateContainerResponse:
        """See the proto."""
        etag = request.etag or request.container.etag
        change = convert.change_from_proto(request, call.viewer)
        row = await self._containers.update(call.container, change, etag)
        return pb.UpdateContainerResponse(container=await self._shown(row, call))

    async def StartContainer(self, _: pb.StartContainerRequest, call: Call) -> pb.StartContainerResponse:
        """See the proto."""
        async with self._starts.turn(call.caller.container_id):
            row = await self._containers.start(call.container)
        return pb.StartContainerResponse(container=await self._shown(row, call))

    async def StopContainer(self, request: pb.StopContainerRequest, call: Call) -> pb.StopContainerResponse:
        """See the proto."""
        row = await self._containers.stop(call.container, convert.grace_from_proto(request))
        return pb.StopContainerResponse(container=await self._shown(row, call))

    async def FreezeContainer(self, _: pb.FreezeContainerRequest, call: Call) -> pb.FreezeContainerResponse:
        """See the proto."""
        row = await self._containers.freeze(call.container)
        return pb.FreezeContainerResponse(container=await self._shown(row, call))

    async def ThawContainer(self, _: pb.ThawContainerRequest, call: Call) -> pb.ThawContainerResponse:
        """See the proto."""
        row = await self._containers.thaw(call.container)
        return pb.ThawContainerResponse(container=await self._shown(row, call))

    async def _shown(self, row: ContainerRow, call: Call) -> Container:
        (now,) = await self._containers.as_they_are([row])
        return convert.container_to_proto(now, call.viewer)

    async def DestroyContainer(
        self, request: pb.DestroyContainerRequest, call: Call
    ) -> AsyncIterator[pb.DestroyContainerResponse]:
        """See the proto."""
        convert.check_destroy(request)
        destroyed = 0
        async for row in self._destroyed(request, call):
            yield convert.destroyed_to_proto(row)
            destroyed += 1
        yield convert.summary_to_proto(destroyed)

    async def _destroyed(self, request: pb.DestroyContainerRequest, call: Call) -> AsyncIterator[ContainerRow]:
        """What is, was before, or would be destroyed, deepest first."""
        key = call.key(request)
        if key is not None and call.answered:
            for row in await self._containers.destroyed_before(key) or ():
                yield row
        elif request.validate_only:
            for row in await self._containers.doomed(call.container):
                yield row
        else:
            async for row in self._containers.destroy(call.container, request.etag, key):
                yield row
