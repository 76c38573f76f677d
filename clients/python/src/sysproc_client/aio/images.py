"""Images, for asyncio: imported as a stream of a tar, made here from a folder if need be.

The service never sees a path of this machine; it gets bytes, and their digest at the end. How they are sent is in
`sysproc_client.aio.uploads`.
"""

import builtins
import os
from contextlib import aclosing
from typing import BinaryIO

from nightos.sysproc.v1 import image_service_pb2 as pb
from sysproc_client._core.values import text
from sysproc_client.aio.connection import Connection
from sysproc_client.aio.uploads import archive_requests, opened, uploaded
from sysproc_client.images import PAGE, Progress


class AsyncImages:
    """The images of a service."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def list(self) -> "list[pb.Image]":
        """All images, by name."""
        request = pb.ListImagesRequest(page_size=PAGE)
        found: builtins.list[pb.Image] = []
        while True:
            page = await self._connection.call(self._connection.stubs.images.ListImages, request)
            found += page.images
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def get(self, name: str) -> pb.GetImageResponse:
        """One image, and the containers that were made from it. Raises NotFound."""
        request = pb.GetImageRequest(name=text(name, "image"))
        return await self._connection.call(self._connection.stubs.images.GetImage, request)

    async def delete(self, name: str) -> None:
        """Forget an image. Raises NotFound, FailedPrecondition (containers were made from it)."""
        request = pb.DeleteImageRequest(name=text(name, "image"))
        await self._connection.call(self._connection.stubs.images.DeleteImage, request, repeatable=False)

    async def import_(
        self,
        name: str,
        source: str | os.PathLike[str] | BinaryIO,
        *,
        replace: bool = False,
        progress: Progress = lambda _: None,
    ) -> pb.ImportImageResponse.Imported:
        """Import a folder, a tar file (plain, gzip, xz, zstd), or an open one. Raises SysprocError, OSError."""
        header = pb.ImportImageRequest.Header(name=text(name, "image"), replace=bool(replace))
        async with opened(source, "an image") as (read, header.size_bytes):
            call = self._connection.stubs.images.ImportImage()
            requests = archive_requests(pb.ImportImageRequest, header, read)
            async with aclosing(uploaded(self._connection, call, requests)) as responses:
                async for response in responses:
                    if response.WhichOneof("update") == "imported":
                        imported: pb.ImportImageResponse.Imported = response.imported
                        return imported
                    progress(response.progress)
        raise ConnectionError("the service ended the import without a result")
