"""What a volume is, as it was when it was last read: the same for every shell.

What can be done with it is in `sysproc_client.volumes` and `sysproc_client.aio.volumes`, what is asked for in
`sysproc_client._core.volume_requests`.
"""

from collections.abc import Sequence
from datetime import datetime

from nightos.sysproc.v1 import volume_pb2 as pb
from nightos.sysproc.v1.ref_pb2 import ContainerRef
from sysproc_client._core.container_facts import as_datetime
from sysproc_client._core.values import to_hex
from sysproc_client._core.volume_requests import ENCRYPTION_NAMES, ON_DESTROY_NAMES, ORIGIN_NAMES


class VolumeFacts:
    """One volume, as it was when it was last read."""

    def __init__(self, message: pb.Volume) -> None:
        #: All that the API says of it: nightos.sysproc.v1.Volume.
        self.message = message

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} of {self.owner_id or 'the host'}>"

    @property
    def name(self) -> str:
        """Unique among those of its owner."""
        return self.message.name

    @property
    def owner_id(self) -> str:
        """The container that it belongs to: 16 hex digits; empty for the host."""
        return to_hex(self.message.owner_id) if self.message.owner_id else ""

    @property
    def size(self) -> int:
        """Of the whole file, in bytes."""
        return self.message.size_bytes

    @property
    def filesystems(self) -> Sequence[pb.Filesystem]:
        """What is in it, in the order of its partitions."""
        return self.message.filesystems

    @property
    def on_destroy(self) -> str:
        """What becomes of it when its owner is destroyed: delete or reparent."""
        return ON_DESTROY_NAMES.get(self.message.on_destroy, "unknown")

    @property
    def origin(self) -> str:
        """Where what is in it comes from: made (by the service), trusted (by the host), foreign (is not mounted)."""
        return ORIGIN_NAMES.get(self.message.origin, "unknown")

    @property
    def encryption(self) -> str:
        """`fs`: each filesystem by itself; `whole`: all of its file; empty: it is not encrypted."""
        return ENCRYPTION_NAMES.get(self.message.encryption, "")

    @property
    def unlocked(self) -> bool:
        """It is encrypted, and was open when it was read: mounted somewhere."""
        return self.message.unlocked

    @property
    def broken(self) -> bool:
        """It is mounted, but what decrypts it was killed: lock it by force, and mount it again."""
        return self.message.broken

    @property
    def key_slots(self) -> dict[str, Sequence[int]]:
        """The numbers of the keys that open each filesystem, by its label; of a volume that was read by itself."""
        return {one.label: list(one.key_slots) for one in self.filesystems}

    @property
    def created(self) -> datetime:
        """When it was created, in UTC."""
        return as_datetime(self.message.create_time)

    @property
    def attached_to(self) -> Sequence[pb.Attachment]:
        """Where it was mounted when it was read."""
        return self.message.attached_to

    @property
    def snapshot_of(self) -> pb.SnapshotOf | None:
        """Of a snapshot, what it shows and of when; None of others."""
        return self.message.snapshot_of if self.message.HasField("snapshot_of") else None

    @property
    def ref(self) -> pb.VolumeRef:
        """How requests name it."""
        owner = ContainerRef(id=self.message.owner_id) if self.message.owner_id else None
        return pb.VolumeRef(owner=owner, name=self.name)
