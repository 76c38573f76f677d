"""What is asked for about containers and their processes, checked and written as messages: the same for every shell.

Each raises InvalidArgument for what no message can hold. The calls are made by `sysproc_client.client`,
`sysproc_client.container` and those beside them in `sysproc_client.aio`.
"""

import uuid
from collections.abc import Mapping, Sequence

from nightos.sysproc.v1 import container_pb2 as pb
from nightos.sysproc.v1 import container_service_pb2 as service
from nightos.sysproc.v1 import process_service_pb2 as processes
from nightos.sysproc.v1.ref_pb2 import ContainerRef
from sysproc_client._core.container_facts import container_ref
from sysproc_client._core.values import (
    as_bytes,
    as_duration,
    bad,
    command,
    count,
    cpu_millis,
    environment,
    labels_of,
    size_bytes,
    text,
)

PROFILES = {
    "": pb.SECCOMP_PROFILE_UNSPECIFIED,
    "default": pb.SECCOMP_PROFILE_DEFAULT,
    "strict": pb.SECCOMP_PROFILE_STRICT,
    "open": pb.SECCOMP_PROFILE_OPEN,
}
PAGE = 1000
# What can be changed and lifted, by the path of its field.
CLEARED = {
    "memory": "limits.memory_bytes",
    "cpus": "limits.cpu_millis",
    "pids": "limits.pids",
    "descendants": "limits.descendants",
    "depth": "limits.depth",
    "storage": "limits.storage_bytes",
    "ttl": "ttl",
    "idle_timeout": "idle_timeout",
}


# -- containers


def limits_of(given: Mapping[str, object]) -> dict[str, int]:
    """The fields of the limits that are given, by the arguments' names; None is not given."""
    fields: dict[str, int] = {}
    for name, value in given.items():
        if value is None:
            continue
        if name in ("memory", "size", "storage"):
            fields["root_bytes" if name == "size" else f"{name}_bytes"] = size_bytes(value)
        elif name == "cpus":
            fields["cpu_millis"] = cpu_millis(value)
        else:
            fields[name] = count(value, {"pids": "processes", "depth": "levels"}.get(name, "containers"))
    return fields


def set_lifetimes(wanted: pb.Container, ttl: object, idle_timeout: object) -> Sequence[str]:
    """Those that are given; their names."""
    given = {name: value for name, value in (("ttl", ttl), ("idle_timeout", idle_timeout)) if value is not None}
    for name, seconds in given.items():
        getattr(wanted, name).CopyFrom(as_duration(seconds))
    return [*given]


def create_request(
    *,
    parent: object,
    limits: Mapping[str, object],
    ttl: object,
    idle_timeout: object,
    image: object,
    name: object,
    hostname: object,
    env: object,
    labels: object,
    profile: object,
    api_users: object,
    delegate: object,
    overcommit: object,
    start: object,
    validate_only: object,
    request_id: object,
) -> service.CreateContainerRequest:
    """Of a container."""
    fields = limits_of(limits)
    wanted = pb.Container(
        name=text(name, "name"),
        image=text(image, "image"),
        hostname=text(hostname, "hostname"),
        environment=environment(env),
        seccomp_profile=profile_number(profile),
        api_users=users(api_users),
        delegate=bool(delegate),
        labels=labels_of(labels),
        limits=pb.Limits(**fields) if fields else None,
    )
    set_lifetimes(wanted, ttl, idle_timeout)
    return service.CreateContainerRequest(
        parent=None if parent is None else container_ref(parent),
        container=wanted,
        stopped=not start,
        validate_only=bool(validate_only),
        overcommit=bool(overcommit),
        request_id=text(request_id or str(uuid.uuid4()), "request_id"),
    )


def update_request(
    ref: ContainerRef,
    *,
    limits: Mapping[str, object],
    ttl: object,
    idle_timeout: object,
    labels: object,
    clear: Sequence[str],
    etag: object,
) -> service.UpdateContainerRequest:
    """Of limits, lifetimes and labels; with what is to be lifted."""
    changed = limits_of(limits)
    wanted, paths = pb.Container(), [path_of(name) for name in clear]
    for name, value in changed.items():
        setattr(wanted.limits, name, value)
    paths += [f"limits.{name}" for name in changed]
    paths += set_lifetimes(wanted, ttl, idle_timeout)
    if labels is not None:
        wanted.labels.update(labels_of(labels))
        paths.append("labels")
    request = service.UpdateContainerRequest(target=ref, container=wanted, etag=text(etag, "etag"))
    request.update_mask.paths.extend(paths)
    return request


def stop_request(ref: ContainerRef, grace: object) -> service.StopContainerRequest:
    """Of a stop, with the seconds that its processes have."""
    return service.StopContainerRequest(container=ref, grace=None if grace is None else as_duration(grace))


def list_request(
    below: ContainerRef | None, *, children_only: bool = False, labels: object = None
) -> service.ListContainersRequest:
    """Of the first page."""
    return service.ListContainersRequest(
        below=below, children_only=children_only, labels=labels_of(labels), page_size=PAGE
    )


def destroy_request(ref: ContainerRef, *, validate_only: bool) -> service.DestroyContainerRequest:
    """Of a destruction, or of what it would destroy."""
    return service.DestroyContainerRequest(container=ref, validate_only=validate_only, request_id=str(uuid.uuid4()))


def path_of(name: object) -> str:
    """The path of the field of something that can be lifted."""
    if not isinstance(name, str) or name not in CLEARED:
        raise bad(name, "limit or lifetime that can be lifted", f"There are {', '.join(CLEARED)}.")
    return CLEARED[name]


def profile_number(profile: object) -> pb.SeccompProfile.ValueType:
    """A profile by its name."""
    if not isinstance(profile, str) or profile not in PROFILES:
        raise bad(profile, "profile of system calls", "There are default, strict and open.")
    return PROFILES[profile]


def users(api_users: object) -> pb.ApiUsers | None:
    """Who besides root has authority inside; None for nobody."""
    if api_users == "all":
        return pb.ApiUsers(all=True)
    if isinstance(api_users, str) or not isinstance(api_users, Sequence):
        raise bad(api_users, "list of users", 'Give uids, or "all".')
    return pb.ApiUsers(uids=[count(uid, "a user") for uid in api_users]) if api_users else None


# -- processes


def exec_start(
    ref: ContainerRef,
    argv: object,
    *,
    env: object,
    cwd: object,
    user: object,
    tty: object,
    stdin: object,
    exec_id: object,
    spool: object,
    drop_oldest: object,
) -> processes.ExecRequest.Start:
    """Of a process."""
    start = processes.ExecRequest.Start(
        container=ref,
        exec_id=text(exec_id, "exec_id"),
        argv=command(argv),
        environment=environment(env),
        working_directory=as_bytes(cwd),
        stdin=bool(stdin),
        spool_bytes=size_bytes(spool),
        spool_policy=processes.SPOOL_POLICY_DROP_OLDEST if drop_oldest else processes.SPOOL_POLICY_UNSPECIFIED,
    )
    if user is not None:
        uid, gid = pair(user, "user") if isinstance(user, tuple) else (user, None)
        start.uid = count(uid, "a user")
        if gid is not None:
            start.gid = count(gid, "a group")
    if tty is not None:
        rows, columns = pair(tty, "size of a terminal")
        start.terminal.rows, start.terminal.columns = count(rows, "rows"), count(columns, "columns")
    return start


def attach_start(ref: ContainerRef, exec_id: object) -> processes.ExecRequest.Start:
    """Of a process that somebody has started before."""
    if not exec_id:
        raise bad(exec_id, "exec id", "Give the id of one of Container.execs().")
    return processes.ExecRequest.Start(container=ref, exec_id=text(exec_id, "exec_id"))


def check_run(input: object, timeout: object) -> None:
    """Raise InvalidArgument for what a command cannot be given at once."""
    if not isinstance(input, (bytes, bytearray, memoryview)):
        raise bad(input, "input of a process", "Give bytes: a text by its encode().")
    if timeout is not None:
        as_duration(timeout)


def pair(value: object, what: str) -> tuple[object, object]:
    """The same, if it is two."""
    if not isinstance(value, tuple) or len(value) != 2:
        raise bad(value, what, "Give two numbers: (0, 0).")
    return value
