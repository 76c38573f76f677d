"""A volume where it is mounted, for asyncio.

    async with data.mount("web", "/srv/data") as mount:
        ...  # it is unmounted at the end

Made by `sysproc_client.aio.volumes.AsyncVolume.mount`.
"""

import os
from types import TracebackType
from typing import TYPE_CHECKING

from nightos.sysproc.v1 import volume_service_pb2 as service
from sysproc_client._core import volume_requests as requests
from sysproc_client._core.errors import NotFound
from sysproc_client.aio.to_end import to_end

if TYPE_CHECKING:
    from typing_extensions import Self

    from sysproc_client.aio.volumes import AsyncVolumes


class AsyncMount:
    """One volume at one path of one container. As a context manager it is unmounted at the end."""

    def __init__(self, volumes: "AsyncVolumes", mounted: service.MountVolumeRequest) -> None:
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

    async def __aenter__(self) -> "Self":
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        try:
            await to_end(self.unmount())
        except NotFound:
            return  # it is not mounted there any more, or the container is gone

    async def unmount(self, *, force: bool = False) -> None:
        """Take it out of the container. Raises NotFound, FailedPrecondition (who uses it).

        force: from wherever it is mounted there; processes that hold a file of it are killed.
        """
        where = self._mounted
        await self._volumes._unmount(requests.unmount_request(where.container, where.path, force=force))
