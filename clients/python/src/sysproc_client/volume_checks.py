"""Whether the filesystems of a volume are whole.

    for found in client.volumes.get("data").check(repair=True):
        print(found.filesystem, found.result, found.output)

Volumes themselves are `sysproc_client.volumes`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from nightos.sysproc.v1 import volume_service_pb2 as service

RESULT_NAMES = {
    service.CHECK_RESULT_CLEAN: "clean",
    service.CHECK_RESULT_REPAIRED: "repaired",
    service.CHECK_RESULT_DAMAGED: "damaged",
    service.CHECK_RESULT_FAILED: "failed",
}


@dataclass(frozen=True)
class Checked:
    """How a filesystem was found: clean, repaired, damaged or failed; output: what the tool has said, as it has."""

    filesystem: str
    result: str
    output: str

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong with it (any more)."""
        return self.result in ("clean", "repaired")


def checked(responses: Iterator[service.CheckVolumeResponse]) -> Iterator[Checked]:
    """What the service says, as it comes."""
    return map(checked_one, responses)


def checked_one(response: service.CheckVolumeResponse) -> Checked:
    """What it says of one filesystem."""
    return Checked(response.filesystem, RESULT_NAMES.get(response.result, "unknown"), response.output)
