"""Who asks, and what this service and this kernel are.

What is known about the kernel is gathered by `sysproc.system`; a caller is identified by `sysproc.server.peer`.
"""

from nightos.sysproc.v1 import system_service_pb2 as service
from sysproc.server.peer import Caller


def caller_to_proto(caller: Caller, container_name: str) -> service.WhoAmIResponse:
    """A caller as it is told who it is."""
    return service.WhoAmIResponse(
        container_id=caller.container_id or 0,
        uid=caller.uid,
        pid=caller.pid,
        authority=caller.authority,
        container_name=container_name,
    )
