"""The synchronous client: connects, creates and finds containers, knows images, volumes and the system.

A thin shell; what a container can do is in `sysproc_client.container`, the others in `sysproc_client.images` and
`sysproc_client.volumes`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from nightos.sysproc.v1 import container_pb2 as pb
from nightos.sysproc.v1 import container_service_pb2 as service
from nightos.sysproc.v1 import system_service_pb2 as system
from nightos.sysproc.v1.container_service_pb2_grpc import ContainerServiceStub
from nightos.sysproc.v1.image_service_pb2_grpc import ImageServiceStub
from nightos.sysproc.v1.process_service_pb2_grpc import ProcessServiceStub
from nightos.sysproc.v1.ref_pb2 import ContainerRef
from nightos.sysproc.v1.system_service_pb2_grpc import SystemServiceStub
from nightos.sysproc.v1.volume_service_pb2_grpc import VolumeServiceStub
from sysproc_client._core import container_requests as requests
from sysproc_client._core.errors import NotFound
from sysproc_client._core.retry import PATIENCE_S, TIMEOUT_S
from sysproc_client._core.values import Environment, reference, to_hex
from sysproc_client.connection import Connection, OnAway
from sysproc_client.container import Container
from sysproc_client.images import Images
from sysproc_client.tls import Tls
from sysproc_client.volumes import Volumes

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")


class Client:
    """A service of sysproc. endpoint: `unix:///path` or `tcp://host:port`; else $SYSPROC_ENDPOINT or the host's own.

    tls: the files for tcp://; absent: those that $SYSPROC_TLS_CA, $SYSPROC_TLS_CERT and $SYSPROC_TLS_KEY name.
    timeout: seconds until a call that is not answered raises TimedOut; None: no end. Processes, destroy, imports,
    exports and checks are streams, and take as long as they take. patience: seconds that a service which died in the
    middle of something may take to come back. on_away: is told the endpoint when that takes long.

    Every call raises Unavailable (nobody answers there, or the answer was lost), TimedOut and PermissionDenied besides
    what its own description says: all are SysprocError, with `reason`, `resolution` and `metadata`.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        tls: Tls | None = None,
        timeout: float | None = TIMEOUT_S,
        patience: float = PATIENCE_S,
        on_away: OnAway = lambda _: None,
    ) -> None:
        self._connection = Connection(endpoint, tls=tls, timeout=timeout, patience=patience, on_away=on_away)
        channel = self._connection.channel
        self._containers, self._processes = ContainerServiceStub(channel), ProcessServiceStub(channel)
        self._system = SystemServiceStub(channel)
        #: Its images.
        self.images = Images(self._connection, ImageServiceStub(channel))
        #: Its volumes, and those of containers.
        self.volumes = Volumes(self._connection, VolumeServiceStub(channel))

    @property
    def endpoint(self) -> str:
        """Where the service is."""
        return self._connection.endpoint

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; containers live on.

        Who waits for something of it meanwhile is told: Unavailable, CLIENT_CLOSED.
        """
        self._connection.close()

    def _call(self, method: Callable[..., T], request: Any, *, more_s: float = 0, repeatable: bool = True) -> T:
        return self._connection.call(method, request, more_s=more_s, repeatable=repeatable)

    # -- containers

    def create(
        self,
        *,
        image: str = "",
        name: str = "",
        parent: str | Container | None = None,
        memory: int | str | None = None,
        cpus: float | str | None = None,
        pids: int | None = None,
        size: int | str | None = None,
        hostname: str = "",
        env: Environment | None = None,
        labels: Mapping[str, str] | None = None,
        profile: str = "",
        descendants: int | None = None,
        depth: int | None = None,
        storage: int | str | None = None,
        overcommit: bool = False,
        ttl: float | None = None,
        idle_timeout: float | None = None,
        api_users: Literal["all"] | Sequence[int] = (),
        delegate: bool = False,
        start: bool = True,
        validate_only: bool = False,
        request_id: str | None = None,
    ) -> Container:
        """Make a container and start it. Sizes are bytes or `256M`; cpus 0.5 is half a processor; times in seconds.

        descendants, depth, storage: what all below may have together. ttl, idle_timeout: when it is destroyed by
        itself. api_users: uids inside that have authority besides root, or `all`. delegate: its root divides its
        part of the cgroups. validate_only: it is only checked; what would be made comes back, without an id. Safe to
        repeat with the same request_id (a UUID). As a context manager it is destroyed at the end.

        Raises InvalidArgument, NotFound (the image, the parent), AlreadyExists (the name), PermissionDenied,
        FailedPrecondition (the parent does not live), LimitExceeded (of one above, or the disk; metadata: which).
        """
        request = requests.create_request(
            parent=parent,
            limits={
                "memory": memory,
                "cpus": cpus,
                "pids": pids,
                "size": size,
                "descendants": descendants,
                "depth": depth,
                "storage": storage,
            },
            ttl=ttl,
            idle_timeout=idle_timeout,
            image=image,
            name=name,
            hostname=hostname,
            env=env,
            labels=labels,
            profile=profile,
            api_users=api_users,
            delegate=delegate,
            overcommit=overcommit,
            start=start,
            validate_only=validate_only,
            request_id=request_id,
        )
        return Container(self, self._call(self._containers.CreateContainer, request).container)

    def get(self, ref: str) -> Container:
        """A container by its id of 16 hex digits or its path of names. Raises NotFound."""
        request = service.GetContainerRequest(container=reference(ref))
        return Container(self, self._call(self._containers.GetContainer, request).container)

    def at(self, ref: str) -> Container:
        """The container of this name or id without asking for it: only good for starting processes in it.

        What does not exist is NotFound then.
        """
        return Container(self, pb.Container(), reference(ref))

    def path(self, ref: str) -> str:
        """The path of names of a container. Raises NotFound."""
        request = service.GetContainerRequest(container=reference(ref))
        return self._call(self._containers.GetContainer, request).path

    def list(self, *, labels: Mapping[str, str] | None = None) -> "list[Container]":
        """All containers, oldest first: parents before their children."""
        return [*self._list(None, labels=labels)]

    def _list(
        self, below: ContainerRef | None, *, children_only: bool = False, labels: Mapping[str, str] | None = None
    ) -> Iterator[Container]:
        request = requests.list_request(below, children_only=children_only, labels=labels)
        while True:
            page = self._call(self._containers.ListContainers, request)
            yield from (Container(self, message) for message in page.containers)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def _destroy(self, ref: ContainerRef, *, validate_only: bool) -> Iterator[str]:
        request = requests.destroy_request(ref, validate_only=validate_only)
        attempts, told = self._connection.attempts(), set()
        try:
            for response in self._connection.repeated(lambda: self._containers.DestroyContainer(request), attempts):
                if response.WhichOneof("update") == "destroyed" and response.destroyed.id not in told:
                    told.add(response.destroyed.id)
                    yield to_hex(response.destroyed.id)
        except NotFound:
            # A service that died while it destroyed has finished that when it came back; it does not tell what.
            if not attempts.lost:
                raise
            if ref.id and ref.id not in told:
                yield to_hex(ref.id)

    # -- the system

    def whoami(self) -> system.WhoAmIResponse:
        """Who this caller is, as the kernel says."""
        return self._call(self._system.WhoAmI, system.WhoAmIRequest())

    def system_info(self) -> system.GetSystemInfoResponse:
        """Versions of the service, and what its kernel can do."""
        return self._call(self._system.GetSystemInfo, system.GetSystemInfoRequest())
