"""ImageService: each method is proto in, one verb, proto out.

What a method means is said in `proto/nightos/sysproc/v1/image_service.proto`; the verbs are in `sysproc.images`,
the order of an upload's parts in `sysproc.server.upload`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

from nightos.sysproc.v1 import image_service_pb2 as pb
from sysproc.images import Images, Imported, Progress
from sysproc.server.call import Call
from sysproc.server.convert import images as convert
from sysproc.server.upload import Upload, with_progress


class ImageService:
    """The servicer of ImageService."""

    def __init__(self, images: Images) -> None:
        self._images = images

    async def ImportImage(
        self, requests: AsyncIterator[pb.ImportImageRequest], _: Call
    ) -> AsyncIterator[pb.ImportImageResponse]:
        """See the proto."""
        upload = Upload(requests)
        header = convert.header_from_proto(await upload.header())

        def work(told: Callable[[Progress], None]) -> Awaitable[Imported]:
            return self._images.import_image(
                header.name,
                upload.chunks(),
                replace=header.replace,
                expected_digest=upload.digest,
                progress=told,
            )

        async with aclosing(with_progress(work)) as updates:
            async for update in updates:
                yield convert.update_to_proto(update)

    async def ListImages(self, request: pb.ListImagesRequest, call: Call) -> pb.ListImagesResponse:
        """See the proto."""
        size, after = convert.page_from_proto(request)
        return convert.page_to_proto(await self._images.list(size + 1, after), size, call.viewer)

    async def GetImage(self, request: pb.GetImageRequest, call: Call) -> pb.GetImageResponse:
        """See the proto."""
        return convert.got_to_proto(*await self._images.get(convert.name_from_proto(request)), call.viewer)

    async def DeleteImage(self, request: pb.DeleteImageRequest, _: Call) -> pb.DeleteImageResponse:
        """See the proto."""
        await self._images.delete(convert.name_from_proto(request))
        return pb.DeleteImageResponse()
