"""SystemService: each method is proto in, one verb, proto out.

What a method means is said in `proto/nightos/sysproc/v1/system_service.proto`; what is known of the kernel is
gathered by `sysproc.system`, and a caller was identified by `sysproc.server.peer`.
"""

from collections.abc import Callable, Iterable

from nightos.sysproc.v1 import system_service_pb2 as pb
from sysproc.containers import Containers
from sysproc.server.call import Call
from sysproc.server.convert import system as convert
from sysproc.server.peer import Caller
from sysproc.system import System


class SystemService:
    """The servicer of SystemService."""

    def __init__(self, containers: Containers, system: System, permitted: Callable[[Caller], Iterable[str]]) -> None:
        """permitted: the methods that a caller may call."""
        self._containers, self._system, self._permitted = containers, system, permitted

    async def WhoAmI(self, _: pb.WhoAmIRequest, call: Call) -> pb.WhoAmIResponse:
        """See the proto."""
        container_id = call.caller.container_id
        name = "" if container_id is None else (await self._containers.get(container_id)).name
        return convert.caller_to_proto(call.caller, name, self._permitted(call.caller))

    async def GetSystemInfo(self, _: pb.GetSystemInfoRequest, call: Call) -> pb.GetSystemInfoResponse:
        """See the proto."""
        return convert.info_to_proto(await self._system.info(), call.viewer)
