"""Containers: what is asked for, what is changed, what there is.

The verbs and their values are in `sysproc.containers`, the row of a container in `sysproc.storage.hierarchy`.
"""

from google.protobuf.duration_pb2 import Duration

from nightos.sysproc.v1 import container_pb2 as pb
from nightos.sysproc.v1 import container_service_pb2 as service
from sysproc import api_users
from sysproc.containers import Change, Listing, Wanted
from sysproc.errors import PermissionDenied
from sysproc.isolation.cgroups import Limits
from sysproc.server import validate
from sysproc.server.convert.basics import (
    duration,
    duration_s,
    environment_from_proto,
    environment_to_proto,
    optional,
    page_size,
    timestamp,
)
from sysproc.server.validate import Findings
from sysproc.storage.hierarchy import ContainerRow, NewContainer, Page

DEFAULT_IMAGE = "busybox"
GRACE_S, GRACE_RANGE_S = 10.0, (0.0, 3600.0)

PROFILES = {
    pb.SECCOMP_PROFILE_UNSPECIFIED: "default",
    pb.SECCOMP_PROFILE_DEFAULT: "default",
    pb.SECCOMP_PROFILE_STRICT: "strict",
    pb.SECCOMP_PROFILE_OPEN: "open",
}
PROFILE_NUMBERS = {name: number for number, name in PROFILES.items()}
STATES = {
    "creating": pb.CONTAINER_STATE_CREATING,
    "running": pb.CONTAINER_STATE_RUNNING,
    "stopped": pb.CONTAINER_STATE_STOPPED,
    "frozen": pb.CONTAINER_STATE_FROZEN,
    "destroying": pb.CONTAINER_STATE_DESTROYING,
    "failed": pb.CONTAINER_STATE_FAILED,
}

LIMITS = ("memory_bytes", "cpu_millis", "pids", "descendants", "depth", "storage_bytes")
# Paths of an update_mask, and the columns that each stands for.
CHANGEABLE = {
    "limits": frozenset(LIMITS),
    **{f"limits.{name}": frozenset({name}) for name in LIMITS},
    "labels": frozenset({"labels"}),
    "ttl": frozenset({"ttl_s"}),
    "idle_timeout": frozenset({"idle_timeout_s"}),
}


# -- Limits


def limits_from_proto(message: pb.Limits, field: str, findings: Findings) -> dict[str, int | None]:
    """All limits but the size of the root, by their names; absent is None."""
    limits = {name: optional(message, name) for name in LIMITS}
    for name, value in limits.items():
        findings.number(f"{field}.{name}", value, validate.LIMITS[name])
    return limits


def limits_to_proto(row: ContainerRow | NewContainer) -> pb.Limits:
    """The limits of a container, the size of its root included."""
    return pb.Limits(root_bytes=row.root_bytes, **{name: getattr(row, name) for name in LIMITS})


# -- Lifetimes and users


def seconds_from_proto(message: pb.Container, field: str, findings: Findings) -> float | None:
    """A duration of a container, in seconds; None if it is absent."""
    if not message.HasField(field):  # type: ignore[arg-type]  # mypy-protobuf wants a literal
        return None
    return duration_s(getattr(message, field), f"container.{field}", validate.LIFETIME_S, findings)


def seconds_to_proto(seconds: float | None) -> Duration | None:
    """The same the other way."""
    return None if seconds is None else duration(seconds)


def api_users_from_proto(message: pb.ApiUsers, findings: Findings) -> str:
    """Who besides root has authority inside, as it is recorded."""
    field, most = "container.api_users.uids", validate.API_USERS
    findings.check(len(message.uids) <= most, field, f"are {len(message.uids)}: at most {most}")
    for uid in message.uids:
        findings.number(field, uid, validate.OTHER_UIDS)
    return api_users.written(message.all, message.uids)


def api_users_to_proto(text: str) -> pb.ApiUsers | None:
    """The same the other way; absent for nobody."""
    return pb.ApiUsers(all=text == api_users.EVERYONE, uids=api_users.uids_of(text)) if text else None


# -- Container


def wanted_from_proto(
    request: service.CreateContainerRequest, parent: ContainerRow | None, viewer: int | None
) -> Wanted:
    """The container that is asked for, below an existing one or the host, by a caller in `viewer` (None: the host)."""
    if request.overcommit and viewer is not None:
        raise PermissionDenied(
            "Only the host may promise more storage than there is.",
            resolution="Leave `overcommit` out.",
            reason="OVERCOMMIT",
        )
    return validate.valid(lambda findings: read_wanted(request, parent, viewer, findings))


def read_wanted(
    request: service.CreateContainerRequest, parent: ContainerRow | None, viewer: int | None, findings: Findings
) -> Wanted:
    """The same, with what is wrong collected."""
    asked = request.container
    image, root_bytes = asked.image or DEFAULT_IMAGE, optional(asked.limits, "root_bytes")
    if asked.name:
        findings.name("container.name", asked.name)
    if asked.hostname:
        findings.hostname("container.hostname", asked.hostname)
    findings.name("container.image", image)
    findings.number("container.limits.root_bytes", root_bytes, validate.ROOT_BYTES)
    findings.labels("container.labels", asked.labels)
    findings.check(asked.seccomp_profile in PROFILES, "container.seccomp_profile", "is no profile")
    findings.request_id("request_id", request.request_id)
    limits = limits_from_proto(asked.limits, "container.limits", findings)
    return Wanted(
        asked_by=viewer,
        parent_id=None if parent is None else parent.id,
        name=asked.name,
        image=image,
        hostname=asked.hostname,
        limits=Limits(**{name: limits.pop(name) for name in ("memory_bytes", "cpu_millis", "pids")}),
        root_bytes=root_bytes,
        environment=environment_from_proto(asked.environment, "container.environment", findings),
        labels=dict(asked.labels),
        profile=PROFILES.get(asked.seccomp_profile, "default"),
        stopped=request.stopped,
        overcommit=request.overcommit,
        ttl_s=seconds_from_proto(asked, "ttl", findings),
        idle_timeout_s=seconds_from_proto(asked, "idle_timeout", findings),
        api_users=api_users_from_proto(asked.api_users, findings),
        delegate=asked.delegate,
        **limits,
    )


def container_to_proto(row: ContainerRow, viewer: int | None) -> pb.Container:
    """A container as the API shows it to a caller in the container `viewer`, or on the host (None)."""
    return pb.Container(
        id=row.id,
        parent_id=0 if row.id == viewer else row.parent_id or 0,
        name=row.name,
        image=row.image_name,
        hostname=row.hostname,
        limits=limits_to_proto(row),
        environment=environment_to_proto(row.environment),
        labels=row.labels,
        seccomp_profile=PROFILE_NUMBERS[row.profile],
        state=STATES[row.state],
        reason=row.reason,
        exit=exit_to_proto(row.exit_code, row.exit_signal),
        etag=row.etag,
        oom_killed=row.oom_killed,
        create_time=timestamp(row.created_at),
        start_time=timestamp(row.started_at),
        stop_time=timestamp(row.stopped_at),
        ttl=seconds_to_proto(row.ttl_s),
        idle_timeout=seconds_to_proto(row.idle_timeout_s),
        api_users=api_users_to_proto(row.api_users),
        delegate=row.delegate,
        expire_time=timestamp(row.expires_at),
    )


def new_to_proto(new: NewContainer) -> pb.Container:
    """A container that would be made: it has no id yet."""
    return pb.Container(
        parent_id=new.parent_id or 0,
        name=new.name,
        image=new.image_name,
        hostname=new.hostname,
        limits=limits_to_proto(new),
        environment=environment_to_proto(new.environment),
        labels=new.labels,
        seccomp_profile=PROFILE_NUMBERS[new.profile],
        ttl=seconds_to_proto(new.ttl_s),
        idle_timeout=seconds_to_proto(new.idle_timeout_s),
        api_users=api_users_to_proto(new.api_users),
        delegate=new.delegate,
    )


def exit_to_proto(code: int | None, signal: int | None) -> pb.ExitStatus | None:
    """How something ended; None if that is not known, or not yet."""
    if signal is not None:
        return pb.ExitStatus(signal=signal)
    return None if code is None else pb.ExitStatus(code=code)


def destroyed_to_proto(row: ContainerRow) -> service.DestroyContainerResponse:
    """One container that is gone."""
    destroyed = service.DestroyContainerResponse.Destroyed(id=row.id, parent_id=row.parent_id or 0, name=row.name)
    return service.DestroyContainerResponse(destroyed=destroyed)


def summary_to_proto(count: int) -> service.DestroyContainerResponse:
    """All of them are gone."""
    return service.DestroyContainerResponse(summary=service.DestroyContainerResponse.Summary(destroyed=count))


# -- requests


def change_from_proto(request: service.UpdateContainerRequest, viewer: int | None) -> Change:
    """What is to be changed: what the mask names, or without a mask everything that is populated."""
    return validate.valid(lambda findings: read_change(request, viewer, findings))


def read_change(request: service.UpdateContainerRequest, viewer: int | None, findings: Findings) -> Change:
    """The same, with what is wrong collected."""
    asked = request.container
    masked = request.HasField("update_mask")
    for position, path in enumerate(request.update_mask.paths):
        findings.check(path in CHANGEABLE, f"update_mask.paths[{position}]", f"cannot be changed: {path[:80]!r}")
    named = (CHANGEABLE.get(path, frozenset()) for path in request.update_mask.paths)
    columns = frozenset[str]().union(*named) if masked else populated(asked)
    findings.labels("container.labels", asked.labels)
    values: dict[str, object] = {
        **limits_from_proto(asked.limits, "container.limits", findings),
        "labels": dict(asked.labels),
        "ttl_s": seconds_from_proto(asked, "ttl", findings),
        "idle_timeout_s": seconds_from_proto(asked, "idle_timeout", findings),
    }
    return Change(viewer, {name: values[name] for name in columns})


def populated(asked: pb.Container) -> frozenset[str]:
    """The columns for the changeable fields that a container message holds."""
    limits = {field.name for field, _ in asked.limits.ListFields()} & CHANGEABLE["limits"]
    others = {"labels": bool(asked.labels), "ttl_s": asked.HasField("ttl")}
    others["idle_timeout_s"] = asked.HasField("idle_timeout")
    return frozenset(limits | {name for name, there in others.items() if there})


def grace_from_proto(request: service.StopContainerRequest) -> float:
    """How long a container has after SIGTERM, in seconds."""
    if not request.HasField("grace"):
        return GRACE_S
    return validate.valid(lambda findings: duration_s(request.grace, "grace", GRACE_RANGE_S, findings))


def check_destroy(request: service.DestroyContainerRequest) -> None:
    """InvalidArgument for a request_id that is no UUID."""
    validate.valid(lambda findings: findings.request_id("request_id", request.request_id))


def listing_from_proto(request: service.ListContainersRequest) -> Listing:
    """Which containers are asked for."""
    validate.valid(lambda findings: findings.labels("labels", request.labels))
    return Listing(
        itself=request.below.WhichOneof("ref") is None,
        children_only=request.children_only,
        labels=dict(request.labels),
        limit=page_size(request.page_size),
        after=request.page_token,
    )


def page_to_proto(page: Page, viewer: int | None) -> service.ListContainersResponse:
    """One page of a list."""
    rows = [container_to_proto(row, viewer) for row in page.containers]
    return service.ListContainersResponse(containers=rows, next_page_token=page.next_token)
