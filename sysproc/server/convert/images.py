"""Images: what there is, and how far an import is.

The verbs are in `sysproc.images`; how the parts of an upload are read is in `sysproc.server.upload`.
"""

from collections.abc import Sequence
from dataclasses import replace

from nightos.sysproc.v1 import image_service_pb2 as service
from sysproc.errors import InvalidArgument
from sysproc.images import Imported, Progress
from sysproc.server import validate
from sysproc.server.convert.basics import page_size, timestamp
from sysproc.storage.images import Image, User


def image_to_proto(image: Image) -> service.Image:
    """An image as the API shows it."""
    return service.Image(
        name=image.name,
        digest=bytes.fromhex(image.digest),
        content_bytes=image.content_bytes,
        stored_bytes=image.stored_bytes,
        root_bytes=image.root_bytes,
        create_time=timestamp(image.created_at),
        containers=image.containers,
        entries=image.entries,
        skipped_devices=image.skipped_devices,
        skipped_attributes=image.skipped_attributes,
    )


def update_to_proto(update: Progress | Imported) -> service.ImportImageResponse:
    """How far an import is, or what it has brought."""
    response = service.ImportImageResponse
    if isinstance(update, Progress):
        progress = response.Progress(
            received_bytes=update.received_bytes, unpacked_bytes=update.unpacked_bytes, entries=update.entries
        )
        return response(progress=progress)
    imported = response.Imported(
        image=image_to_proto(update.image),
        existed=update.existed,
        skipped_devices=update.image.skipped_devices,
    )
    return response(imported=imported)


def header_from_proto(header: service.ImportImageRequest.Header) -> service.ImportImageRequest.Header:
    """How an import begins, if it names an image."""
    validate.valid(lambda findings: findings.name("header.name", header.name))
    return header


def name_from_proto(request: service.DeleteImageRequest | service.GetImageRequest) -> str:
    """The image that is named."""
    validate.valid(lambda findings: findings.name("name", request.name))
    return request.name


def page_from_proto(request: service.ListImagesRequest) -> tuple[int, str]:
    """How many images are asked for, and after which name."""
    if request.page_token and not validate.is_name(request.page_token):
        raise InvalidArgument(
            "The page_token is not one that this service gave.",
            resolution="Send the next_page_token of the page before, or none for the first page.",
            reason="BAD_PAGE_TOKEN",
        )
    return page_size(request.page_size), request.page_token


def page_to_proto(images: Sequence[Image], size: int, viewer: int | None) -> service.ListImagesResponse:
    """One page of a list; there is a next one if more were found than it has room for.

    Inside a container (viewer) nobody is told how many containers there are of an image.
    """
    token = images[size - 1].name if len(images) > size else ""
    shown = [as_seen(image, viewer) for image in images[:size]]
    return service.ListImagesResponse(images=map(image_to_proto, shown), next_page_token=token)


def as_seen(image: Image, viewer: int | None) -> Image:
    """Without what is nothing to somebody inside a container (viewer): how many others there are."""
    return image if viewer is None else replace(image, containers=0)


def got_to_proto(image: Image, users: Sequence[User], viewer: int | None) -> service.GetImageResponse:
    """One image; users are told on the host only."""
    shown = [service.ImageUser(container_id=user.id, container_name=user.name) for user in users if viewer is None]
    return service.GetImageResponse(image=image_to_proto(as_seen(image, viewer)), users=shown)
