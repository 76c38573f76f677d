"""A container as an object: what it is, and what can be done with it.

Made by `sysproc_client.client.Client`; processes in it are `sysproc_client.process.Process`.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from nightos.sysproc.v1 import container_pb2 as pb
from nightos.sysproc.v1 import container_service_pb2 as service
from nightos.sysproc.v1 import process_service_pb2 as processes
from nightos.sysproc.v1.ref_pb2 import ContainerRef
from sysproc_client._core.values import (
    Environment,
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
    to_hex,
)
from sysproc_client.process import Process, Result

if TYPE_CHECKING:
    from sysproc_client.client import Client

STATES = {number: name.removeprefix("CONTAINER_STATE_").lower() for name, number in pb.ContainerState.items() if number}


class Container:
    """One container, as it was when it was last read; `refresh` reads again."""

    def __init__(self, client: "Client", message: pb.Container, ref: ContainerRef | None = None) -> None:
        self._client, self.message = client, message
        self._ref = ref

    def __repr__(self) -> str:
        return f"<Container {self.id} {self.name or '-'} {self.state}>"

    # -- what it is

    @property
    def id(self) -> str:
        """16 hex digits."""
        return to_hex(self.message.id)

    @property
    def parent_id(self) -> str:
        """16 hex digits; empty for a child of the host."""
        return to_hex(self.message.parent_id) if self.message.parent_id else ""

    @property
    def name(self) -> str:
        """Unique among its siblings; may be empty."""
        return self.message.name

    @property
    def state(self) -> str:
        """creating, running, stopped, frozen, destroying or failed."""
        return STATES.get(self.message.state, "unknown")

    @property
    def created(self) -> datetime:
        """When it was created, in UTC."""
        return as_datetime(self.message.create_time)

    @property
    def ref(self) -> ContainerRef:
        """How requests name it."""
        return self._ref or ContainerRef(id=self.message.id)

    # -- processes in it

    def exec(
        self,
        argv: Sequence[str | bytes],
        *,
        env: Environment | None = None,
        cwd: str | bytes = "",
        user: int | tuple[int, int] | None = None,
        tty: tuple[int, int] | None = None,
        stdin: bool = True,
        exec_id: str = "",
        spool: int | str = 0,
        drop_oldest: bool = False,
    ) -> Process:
        """Prepare a process; it starts when it is iterated or waited for, and raises SysprocError then.

        user: a uid, or uid and gid. tty: rows and columns. spool: how much unread output is kept.
        """
        start = processes.ExecRequest.Start(
            container=self.ref,
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
        return Process(self._client._connection, start)

    def run(
        self,
        argv: Sequence[str | bytes],
        *,
        input: bytes = b"",
        env: Environment | None = None,
        cwd: str | bytes = "",
        user: int | tuple[int, int] | None = None,
        timeout: float | None = None,
    ) -> Result:
        """Run a command to its end and collect its output. After `timeout` seconds it is killed: TimedOut."""
        if not isinstance(input, (bytes, bytearray, memoryview)):
            raise bad(input, "input of a process", "Give bytes: a text by its encode().")
        if timeout is not None:
            as_duration(timeout)
        process = self.exec(argv, env=env, cwd=cwd, user=user, stdin=bool(input))
        if input:
            process._do(lambda machine: machine.write(input))
            process.stdin.close()
        return process.collect(timeout)

    def ps(self) -> Sequence[processes.Process]:
        """All processes in it."""
        request = processes.ListProcessesRequest(container=self.ref)
        return self._client._call(self._client._processes.ListProcesses, request).processes

    def execs(self) -> Sequence[processes.Exec]:
        """The processes that were started in it through the service."""
        request = processes.ListExecsRequest(container=self.ref)
        return self._client._call(self._client._processes.ListExecs, request).execs

    # -- its life

    def refresh(self) -> "Container":
        """Read it again."""
        request = service.GetContainerRequest(container=self.ref)
        return self._now(self._client._call(self._client._containers.GetContainer, request).container)

    def start(self) -> "Container":
        """Start it, if it is stopped."""
        request = service.StartContainerRequest(container=self.ref)
        return self._now(self._client._call(self._client._containers.StartContainer, request).container)

    def stop(self, grace: float | None = None) -> "Container":
        """Stop it; its processes have `grace` seconds (10 if not said)."""
        request = service.StopContainerRequest(container=self.ref)
        if grace is not None:
            request.grace.CopyFrom(as_duration(grace))
        stop = self._client._containers.StopContainer
        return self._now(self._client._call(stop, request, more_s=grace or 0).container)

    def freeze(self) -> "Container":
        """Suspend all its processes, and those below it."""
        request = service.FreezeContainerRequest(container=self.ref)
        return self._now(self._client._call(self._client._containers.FreezeContainer, request).container)

    def thaw(self) -> "Container":
        """Let it go on."""
        request = service.ThawContainerRequest(container=self.ref)
        return self._now(self._client._call(self._client._containers.ThawContainer, request).container)

    def update(
        self,
        *,
        memory: int | str | None = None,
        cpus: float | str | None = None,
        pids: int | None = None,
        descendants: int | None = None,
        depth: int | None = None,
        storage: int | str | None = None,
        ttl: float | None = None,
        idle_timeout: float | None = None,
        labels: Mapping[str, str] | None = None,
        clear: Sequence[str] = (),
        etag: str = "",
    ) -> "Container":
        """Change limits, lifetimes (in seconds, ttl from now on) and labels; `clear` names what to lift of these."""
        wanted, paths = pb.Container(), [path_of(name) for name in clear]
        limits = {
            "memory": None if memory is None else size_bytes(memory),
            "cpus": None if cpus is None else cpu_millis(cpus),
            "pids": None if pids is None else count(pids, "processes"),
            "descendants": None if descendants is None else count(descendants, "containers"),
            "depth": None if depth is None else count(depth, "levels"),
            "storage": None if storage is None else size_bytes(storage),
        }
        for name, value in limits.items():
            if value is not None:
                setattr(wanted.limits, CLEARED[name].removeprefix("limits."), value)
                paths.append(CLEARED[name])
        for name, seconds in (("ttl", ttl), ("idle_timeout", idle_timeout)):
            if seconds is not None:
                getattr(wanted, name).CopyFrom(as_duration(seconds))
                paths.append(name)
        if labels is not None:
            wanted.labels.update(labels_of(labels))
            paths.append("labels")
        request = service.UpdateContainerRequest(target=self.ref, container=wanted, etag=text(etag, "etag"))
        request.update_mask.paths.extend(paths)
        # With an etag a second time would be refused, because of the first.
        update = self._client._containers.UpdateContainer
        return self._now(self._client._call(update, request, repeatable=not etag).container)

    def _now(self, message: pb.Container) -> "Container":
        self.message = message
        return self

    def children(self) -> list["Container"]:
        """Its children, oldest first."""
        return list(self._client._list(self.ref, children_only=True))

    def doomed(self) -> list[str]:
        """The ids of what destroy would destroy, deepest first."""
        return list(self._destroy(validate_only=True))

    def destroy(self) -> list[str]:
        """Destroy it and everything below it; the ids of what is gone, deepest first."""
        return list(self.destroying())

    def destroying(self) -> Iterator[str]:
        """The same, each id as it goes; who stops listening does not stop it."""
        return self._destroy(validate_only=False)

    def _destroy(self, *, validate_only: bool) -> Iterator[str]:
        return self._client._destroy(self.ref, validate_only=validate_only)


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


def path_of(name: object) -> str:
    """The path of the field of something that can be lifted."""
    if not isinstance(name, str) or name not in CLEARED:
        raise bad(name, "limit or lifetime that can be lifted", f"There are {', '.join(CLEARED)}.")
    return CLEARED[name]


def pair(value: object, what: str) -> tuple[object, object]:
    """The same, if it is two."""
    if not isinstance(value, tuple) or len(value) != 2:
        raise bad(value, what, "Give two numbers: (0, 0).")
    return value


def as_datetime(timestamp: Timestamp) -> datetime:
    """A time of the API, in UTC."""
    return timestamp.ToDatetime(tzinfo=UTC)
