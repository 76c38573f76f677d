"""The audit log: each call that was refused, as one structured event; and what of an error a container is told.

    audit  decision=refused reason=… caller_pid=… caller_uid=… caller_container=… method=… target=… request=…
           caller_identity=… certificate=… peer=…     of a caller on another machine: URI SAN, serial number, address

Refusals are counted with all other ends of calls (`sysproc.server.interceptor`); that a connection was refused is
logged by `sysproc.server.relay`. Who may do what is decided in `sysproc.server.interceptor` and
`sysproc.server.targets`.
"""

import structlog

from sysproc.errors import Kind, LimitExceeded, SysprocError
from sysproc.ids import to_hex
from sysproc.server.call import Call
from sysproc.server.peer import Caller

log = structlog.get_logger()

# Failures of the service and its host: their details name paths, pids and figures of the host.
OF_THE_HOST = frozenset(
    {
        Kind.INTERNAL,
        Kind.UNAVAILABLE,
        Kind.RESOURCE_EXHAUSTED,
        Kind.DEADLINE_EXCEEDED,
        Kind.DATA_LOSS,
        Kind.UNIMPLEMENTED,
    }
)


def write_refusal(call: Call, error: SysprocError) -> None:
    """One call that was refused: who wanted what of whom."""
    caller = call.caller
    log.warning(
        "audit",
        decision="refused",
        reason=error.reason,
        caller_pid=caller.pid,
        caller_uid=caller.uid,
        caller_container="" if caller.container_id is None else to_hex(caller.container_id),
        target=call.asked,
        **of_certificate(caller),
    )


def of_certificate(caller: Caller) -> dict[str, str]:
    """What is known of a caller on another machine only."""
    if (remote := caller.remote) is None:
        return {}
    return {"caller_identity": remote.identity, "certificate": remote.serial, "peer": remote.address}


def as_told(caller: Caller, error: SysprocError) -> SysprocError:
    """The error as this caller may see it: inside a container, nothing of the host."""
    mine = isinstance(error, LimitExceeded) or error.kind not in OF_THE_HOST
    if caller.container_id is None or mine:
        return error
    told = SysprocError(error.brief, resolution=error.resolution, reason=error.reason)
    told.kind = error.kind
    return told
