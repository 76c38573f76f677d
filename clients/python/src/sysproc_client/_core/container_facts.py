"""What a container is, as it was when it was last read: the same for every shell.

What can be done with it is in `sysproc_client.container` and `sysproc_client.aio.container`, what is asked for in
`sysproc_client._core.container_requests`.
"""

from datetime import datetime, timezone

from google.protobuf.timestamp_pb2 import Timestamp

from nightos.sysproc.v1 import container_pb2 as pb
from nightos.sysproc.v1.ref_pb2 import ContainerRef
from sysproc_client._core.values import reference, to_hex

STATES = {number: name.removeprefix("CONTAINER_STATE_").lower() for name, number in pb.ContainerState.items() if number}


class ContainerFacts:
    """One container, as it was when it was last read; `refresh` reads again."""

    def __init__(self, message: pb.Container, ref: ContainerRef | None = None) -> None:
        self._ref = ref
        #: All that the API says of it: nightos.sysproc.v1.Container.
        self.message = message

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.name or '-'} {self.state}>"

    @property
    def id(self) -> str:
        """16 hex digits; empty where it is not known, as of one that was not made."""
        return to_hex(self.message.id) if self.message.id else ""

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

    @property
    def _is_made(self) -> bool:
        """False of one that was only checked."""
        return bool(self._ref or self.message.id)


def as_datetime(timestamp: Timestamp) -> datetime:
    """A time of the API, in UTC."""
    return timestamp.ToDatetime(tzinfo=timezone.utc)


def container_ref(container: object) -> ContainerRef:
    """Of a container, or of its id or path of names."""
    return container.ref if isinstance(container, ContainerFacts) else reference(container)
