"""Read-only, compressed volumes, made as a stream of a tar; of a folder, the tar is made here.

    client.volumes.create_from("tools", "/srv/tools", fs="erofs", compress="lz4hc:9")

Volumes that are written are made by `sysproc_client.volumes`.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from nightos.sysproc.v1 import volume_service_pb2 as service
from sysproc_client._core.errors import SysprocError
from sysproc_client._core.values import bad
from sysproc_client.connection import Connection
from sysproc_client.images import Readable, UploadedBytes, tar_of

Progress = Callable[[service.CreateVolumeFromResponse.Progress], None]
Source = str | os.PathLike[str] | BinaryIO


class Packing(UploadedBytes):
    """The requests of one volume: the header, the bytes, their digest."""

    def __init__(self, header: service.CreateVolumeFromRequest.Header, stream: Readable) -> None:
        super().__init__(stream)
        self._header = header

    def requests(self) -> Iterator[service.CreateVolumeFromRequest]:
        """In their order."""
        request, digest = service.CreateVolumeFromRequest, hashlib.sha256()
        yield request(header=self._header)
        while chunk := self._read():
            digest.update(chunk)
            yield request(data=chunk)
        if self.failure is None:
            yield request(trailer=request.Trailer(digest=digest.digest()))


def packed(
    connection: Connection,
    method: Any,
    header: service.CreateVolumeFromRequest.Header,
    source: Source,
    progress: Progress,
) -> service.CreateVolumeFromResponse.Created:
    """Send a folder, a tar file (plain, gzip, xz, zstd), or an open one; what was made of it.

    Raises SysprocError, OSError.
    """
    if not isinstance(source, (str, os.PathLike)):
        if not hasattr(source, "read"):
            raise bad(source, "source of a volume", "Give a path, or an open file.")
        return _send(connection, method, Packing(header, source), progress)
    path = Path(source)
    if path.is_dir():
        with tar_of(path) as stream:
            return _send(connection, method, Packing(header, stream), progress)
    with path.open("rb") as file:
        header.size_bytes = path.stat().st_size
        return _send(connection, method, Packing(header, file), progress)


def _send(
    connection: Connection, method: Any, upload: Packing, progress: Progress
) -> service.CreateVolumeFromResponse.Created:
    call = connection.begin(method, upload.requests())
    upload.cancel_with(call.cancel)
    try:
        for response in connection.stream(call):
            if response.WhichOneof("update") == "created":
                created: service.CreateVolumeFromResponse.Created = response.created
                return created
            progress(response.progress)
    except SysprocError as failure:
        raise upload.failure or failure from failure.__cause__
    finally:
        call.cancel()
    raise ConnectionError("the service ended without a result")
