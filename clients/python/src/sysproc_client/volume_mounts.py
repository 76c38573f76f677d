"""A volume where it is mounted.

    with data.mount("web", "/srv/data") as mount:
        ...  # it is unmounted at the end

Made by `sysproc_client.volumes.Volume.mount`.
"""

import os
from types import TracebackType
from typing import TYPE_CHECKING

from nightos.sysproc.v1 import volume_service_pb2 as service
from sysproc_client._core import volume_requests as requests
from sysproc_client._core.errors import NotFound

if TYPE_CHECKING:
    from typing_extensions import Self

    from sysproc_client.volumes import Volumes


class Mount:
    """One volume at one path of one container. As a context manager it is unmounted at the end."""

    def __init__(self, volumes: "Volumes", mounted: service.MountVolumeRequest) -> None:
        self._volumes, self._mounted = volumes, mounted

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.volume} at {self.path}>"

    @property
    def volume(self) -> str:
        """The name of the volume."""
        return self._mounted.volume.name

    @property
    def path(self) -> str:
        """Where it is in the container."""
        return os.fsdecode(self._mounted.path)

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        try:
            self.unmount()
        except NotFound:
            return  # it is not mounted there any more, or the container is gone

    def unmount(self, *, force: bool = False) -> None:
        """Take it out of the container. Raises NotFound, FailedPrecondition (who uses it).

        force: from wherever it is mounted there; processes that hold a file of it are killed.
        """
        where = self._mounted
        self._volumes._unmount(requests.unmount_request(where.container, where.path, force=force))
