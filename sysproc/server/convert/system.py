"""Who asks, and what this service and this kernel are.

What is known about the kernel is gathered by `sysproc.system`; a caller is identified by `sysproc.server.peer`.
"""

from collections.abc import Iterable

from nightos.sysproc.v1 import system_service_pb2 as service
from sysproc.disk_watch import DiskState
from sysproc.isolation.cgroups import CgroupMode
from sysproc.isolation.kernel_features import Finding
from sysproc.server.peer import Caller
from sysproc.system import SystemInfo

API_VERSION = service.DESCRIPTOR.package
CGROUP_MODES = {
    CgroupMode.UNIFIED: service.CGROUP_MODE_UNIFIED,
    CgroupMode.HYBRID: service.CGROUP_MODE_HYBRID,
    CgroupMode.LEGACY: service.CGROUP_MODE_LEGACY,
}


def caller_to_proto(caller: Caller, container_name: str, methods: Iterable[str]) -> service.WhoAmIResponse:
    """A caller as it is told who it is."""
    return service.WhoAmIResponse(
        container_id=caller.container_id or 0,
        uid=caller.uid,
        pid=caller.pid,
        authority=caller.authority,
        container_name=container_name,
        methods=methods,
        remote_identity="" if caller.remote is None else caller.remote.identity,
    )


def info_to_proto(info: SystemInfo, viewer: int | None) -> service.GetSystemInfoResponse:
    """What this service and this kernel are.

    Inside a container (viewer) nobody is told of the disk: its size is the host's, and what is free is what others do.
    """
    return service.GetSystemInfoResponse(
        version=info.version,
        api_version=API_VERSION,
        kernel_release=info.kernel_release,
        architecture=info.architecture,
        cgroup_mode=CGROUP_MODES[info.cgroup_mode],
        features=map(feature_to_proto, info.features),
        python_version=info.python_version,
        grpc_version=info.grpc_version,
        disk=disk_to_proto(info.disk) if viewer is None else None,
    )


def disk_to_proto(disk: DiskState) -> service.Disk:
    """The disk with the state directory."""
    return service.Disk(
        full=disk.full, free_bytes=disk.free_bytes, enough_bytes=disk.enough_bytes, size_bytes=disk.size_bytes
    )


def feature_to_proto(finding: Finding) -> service.KernelFeature:
    """One feature of the kernel."""
    feature = finding.feature
    return service.KernelFeature(
        name=feature.name,
        usable=finding.usable,
        detail=finding.detail,
        fallback=feature.fallback,
        since=feature.since,
    )
