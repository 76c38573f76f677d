"""A container as an object: what can be done with it. What it is, is in `sysproc_client._core.container_facts`.

Made by `sysproc_client.client.Client`; processes in it are `sysproc_client.process.Process`.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from nightos.sysproc.v1 import container_pb2 as pb
from nightos.sysproc.v1 import container_service_pb2 as service
from nightos.sysproc.v1 import process_service_pb2 as processes
from nightos.sysproc.v1.ref_pb2 import ContainerRef
from sysproc_client._core import container_requests as requests
from sysproc_client._core.container_facts import ContainerFacts
from sysproc_client._core.container_facts import as_datetime as as_datetime
from sysproc_client._core.errors import NotFound
from sysproc_client._core.results import Result
from sysproc_client._core.trees import Tree, tree_of
from sysproc_client._core.values import Environment
from sysproc_client.process import Process

if TYPE_CHECKING:
    from typing_extensions import Self

    from sysproc_client.client import Client


class Container(ContainerFacts):
    """One container, as it was when it was last read; `refresh` reads again.

    As a context manager it is destroyed at the end, with everything below it; somebody else may have done so already.
    """

    def __init__(self, client: "Client", message: pb.Container, ref: ContainerRef | None = None) -> None:
        super().__init__(message, ref)
        self._client = client

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if not self._is_made:
            return
        try:
            self.destroy()
        except NotFound:
            return  # it is gone already

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
        """Prepare a process; it starts when it is iterated or waited for.

        user: a uid, or uid and gid. tty: rows and columns. spool: how much unread output is kept.

        Raises InvalidArgument; then, when it starts, NotFound (the container), FailedPrecondition (it does not run),
        AlreadyExists (exec_id), LimitExceeded.
        """
        start = requests.exec_start(
            self.ref,
            argv,
            env=env,
            cwd=cwd,
            user=user,
            tty=tty,
            stdin=stdin,
            exec_id=exec_id,
            spool=spool,
            drop_oldest=drop_oldest,
        )
        return Process(self._client._connection, start)

    def attach(self, exec_id: str) -> Process:
        """Come back to a process that was started before, by its exec id; its output comes from the first byte kept.

        Raises NotFound (the container, or it has no such process) when it is read.
        """
        process = Process(self._client._connection, requests.attach_start(self.ref, exec_id))
        process._do(lambda machine: machine.only_attach())
        return process

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
        """Run a command to its end and collect its output; however it is left, the command is over.

        Raises TimedOut (it took longer than `timeout` seconds, and was killed), otherwise what `exec` raises.
        """
        requests.check_run(input, timeout)
        process = self.exec(argv, env=env, cwd=cwd, user=user, stdin=bool(input))
        if input:
            process._do(lambda machine: machine.write(input))
            process.stdin.close()
        return process.collect(timeout)

    def ps(self) -> Sequence[processes.Process]:
        """All processes in it. Raises NotFound."""
        request = processes.ListProcessesRequest(container=self.ref)
        return self._client._call(self._client._processes.ListProcesses, request).processes

    def execs(self) -> Sequence[processes.Exec]:
        """The processes that were started in it through the service. Raises NotFound."""
        request = processes.ListExecsRequest(container=self.ref)
        return self._client._call(self._client._processes.ListExecs, request).execs

    # -- its life

    def refresh(self) -> "Container":
        """Read it again. Raises NotFound."""
        request = service.GetContainerRequest(container=self.ref)
        return self._now(self._client._call(self._client._containers.GetContainer, request).container)

    def start(self) -> "Container":
        """Start it, if it is stopped.

        Raises NotFound, FailedPrecondition (one above does not run; it is frozen, has failed, or cannot be started from
        its root), LimitExceeded.
        """
        request = service.StartContainerRequest(container=self.ref)
        return self._now(self._client._call(self._client._containers.StartContainer, request).container)

    def stop(self, grace: float | None = None) -> "Container":
        """Stop it, if it is not stopped; its processes have `grace` seconds (10 if not said).

        Raises InvalidArgument, NotFound, FailedPrecondition (it is being made or destroyed, or has failed),
        InternalError (a process is stuck in the kernel).
        """
        stop = self._client._containers.StopContainer
        return self._now(self._client._call(stop, requests.stop_request(self.ref, grace), more_s=grace or 0).container)

    def freeze(self) -> "Container":
        """Suspend all its processes, and those below it. Raises NotFound, FailedPrecondition (it does not run)."""
        request = service.FreezeContainerRequest(container=self.ref)
        return self._now(self._client._call(self._client._containers.FreezeContainer, request).container)

    def thaw(self) -> "Container":
        """Let it go on. Raises NotFound, FailedPrecondition (it is neither frozen nor running)."""
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
        """Change limits, lifetimes (in seconds, ttl from now on) and labels; `clear` names what to lift of these.

        Raises InvalidArgument, NotFound, PermissionDenied (a container only lowers its own limits), FailedPrecondition
        (it uses more now), LimitExceeded (more than a container above has), Aborted (etag).
        """
        request = requests.update_request(
            self.ref,
            limits={
                "memory": memory,
                "cpus": cpus,
                "pids": pids,
                "descendants": descendants,
                "depth": depth,
                "storage": storage,
            },
            ttl=ttl,
            idle_timeout=idle_timeout,
            labels=labels,
            clear=clear,
            etag=etag,
        )
        # With an etag a second time would be refused, because of the first.
        update = self._client._containers.UpdateContainer
        return self._now(self._client._call(update, request, repeatable=not etag).container)

    def _now(self, message: pb.Container) -> "Container":
        self.message = message
        return self

    def children(self) -> list["Container"]:
        """Its children, oldest first. Raises NotFound."""
        return list(self._client._list(self.ref, children_only=True))

    def tree(self) -> "Tree[Container]":
        """It and everything below it, as they are now. Raises NotFound."""
        self.refresh()
        return tree_of(self, self._client._list(self.ref))

    def doomed(self) -> list[str]:
        """The ids of what destroy would destroy, deepest first. Raises NotFound."""
        return list(self._destroy(validate_only=True))

    def destroy(self) -> list[str]:
        """Destroy it and everything below it; the ids of what is gone, deepest first.

        Raises NotFound, FailedPrecondition (one is stuck in the kernel; it says which).
        """
        return list(self.destroying())

    def destroying(self) -> Iterator[str]:
        """The same, each id as it goes; who stops listening does not stop it. Raises what `destroy` raises."""
        return self._destroy(validate_only=False)

    def _destroy(self, *, validate_only: bool) -> Iterator[str]:
        return self._client._destroy(self.ref, validate_only=validate_only)
