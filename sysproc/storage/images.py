"""Images, as recorded: names, and the contents they stand for. The files are the business of `sysproc.images`."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, delete, func, select
from sqlalchemy.dialects.sqlite import insert

from sysproc.errors import AlreadyExists, FailedPrecondition, NotFound
from sysproc.storage.events import write_event
from sysproc.storage.schema import CONTAINERS, IMAGE_CONTENTS, IMAGES


@dataclass(frozen=True)
class Content:
    """What an image holds. Sizes in bytes: of its files, of its VSF on the disk, of the least root made from it.

    entries: of its tar, if they were counted. skipped_attributes: which were left out, and how often.
    """

    digest: str
    content_bytes: int
    stored_bytes: int
    root_bytes: int
    skipped_devices: int
    entries: int | None = None
    skipped_attributes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Image:
    """A name and what it stands for. created_at: seconds since 1970; containers: how many were made from it."""

    name: str
    digest: str
    content_bytes: int
    stored_bytes: int
    root_bytes: int
    skipped_devices: int
    created_at: float
    containers: int
    entries: int | None = None
    skipped_attributes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class User:
    """A container that was made from an image."""

    id: str
    name: str

    def __str__(self) -> str:
        return f"{self.id} ({self.name})" if self.name else self.id


def _query() -> Select[tuple[object, ...]]:
    used = (
        select(func.count())
        .select_from(CONTAINERS)
        .where(CONTAINERS.c.image_name == IMAGES.c.name, CONTAINERS.c.image_digest == IMAGES.c.digest)
        .scalar_subquery()
    )
    content = IMAGE_CONTENTS.c
    return select(
        IMAGES.c.name,
        IMAGES.c.digest,
        content.content_bytes,
        content.stored_bytes,
        content.root_bytes,
        content.skipped_devices,
        IMAGES.c.created_at,
        used.label("containers"),
        content.entries,
        content.skipped_attributes,
    ).join(IMAGE_CONTENTS, content.digest == IMAGES.c.digest)


_ALL = _query()
_NAMED = _ALL.where(IMAGES.c.name == bindparam("name"))
_CONTENT = select(IMAGE_CONTENTS).where(IMAGE_CONTENTS.c.digest == bindparam("digest"))
_CONTENT_NAMED = select(IMAGE_CONTENTS).join(IMAGES).where(IMAGES.c.name == bindparam("name"))


def _image(found: "Row[tuple[object, ...]]") -> Image:
    return Image(**found._mapping)  # the columns are named as the fields


def get_image(connection: Connection, name: str) -> Image | None:
    """The image of this name."""
    found = connection.execute(_NAMED, {"name": name}).first()
    return None if found is None else _image(found)


def users_of(connection: Connection, image: Image, *, limit: int | None = None) -> Sequence[User]:
    """The containers that were made from it, oldest first."""
    container = CONTAINERS.c
    query = select(container.id, container.name).where(
        container.image_name == image.name, container.image_digest == image.digest
    )
    found = connection.execute(query.order_by(container.created_revision).limit(limit))
    return [User(id, name) for id, name in found]


def image_and_users(connection: Connection, name: str, *, limit: int) -> tuple[Image, Sequence[User]]:
    """Both at one moment. Raises NotFound."""
    image = get_image(connection, name)
    if image is None:
        raise no_image(name)
    return image, users_of(connection, image, limit=limit)


def list_images(connection: Connection, *, limit: int, after: str = "") -> list[Image]:
    """Images by name, after one."""
    query = _ALL.where(IMAGES.c.name > after).order_by(IMAGES.c.name).limit(limit)
    return [_image(found) for found in connection.execute(query)]


def get_content(connection: Connection, digest: str) -> Content | None:
    """The content of this digest, if it is recorded."""
    return _content(connection.execute(_CONTENT, {"digest": digest}).first())


def content_named(connection: Connection, name: str) -> Content | None:
    """The content that a name stands for. Unlike `get_image` it counts no containers, however many there are."""
    return _content(connection.execute(_CONTENT_NAMED, {"name": name}).first())


def _content(found: "Row[*tuple[Any, ...]] | None") -> Content | None:
    return None if found is None else Content(**{name: getattr(found, name) for name in Content.__dataclass_fields__})


def put_image(connection: Connection, name: str, content: Content, *, replace: bool) -> Image:
    """Record that a name stands for a content. Raises AlreadyExists if it stands for another and may not change."""
    known = get_image(connection, name)
    if known is not None and known.digest != content.digest and not replace:
        raise other_content(name)
    values = {field: getattr(content, field) for field in Content.__dataclass_fields__} | {"created_at": time.time()}
    connection.execute(insert(IMAGE_CONTENTS).values(values).on_conflict_do_nothing())
    row = {"name": name, "digest": content.digest, "created_at": time.time()}
    statement = insert(IMAGES).values(row)
    if known is None or known.digest != content.digest:
        connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=row))
        write_event(connection, "image.imported", name, {"digest": content.digest})
    image = get_image(connection, name)
    if image is None:
        raise no_image(name)
    return image


def delete_image(connection: Connection, name: str) -> None:
    """Forget a name. Raises NotFound, and FailedPrecondition while containers made from it are there."""
    image = get_image(connection, name)
    if image is None:
        raise no_image(name)
    users = users_of(connection, image)
    if users:
        raise in_use(name, users)
    connection.execute(delete(IMAGES).where(IMAGES.c.name == name))
    write_event(connection, "image.deleted", name, {"digest": image.digest})


def delete_unused_contents(connection: Connection) -> list[str]:
    """Forget contents that no name and no container refers to; their digests."""
    unused = select(IMAGE_CONTENTS.c.digest).where(
        IMAGE_CONTENTS.c.digest.not_in(select(IMAGES.c.digest)),
        IMAGE_CONTENTS.c.digest.not_in(select(CONTAINERS.c.image_digest)),
    )
    digests = list(connection.execute(unused).scalars())
    connection.execute(delete(IMAGE_CONTENTS).where(IMAGE_CONTENTS.c.digest.in_(digests)))
    return digests


def no_image(name: str) -> NotFound:
    """There is no image of this name."""
    return NotFound(
        f"There is no image named {name}.",
        resolution="`sysproc image list` shows what there is, `sysproc image import NAME SOURCE` brings one.",
        reason="IMAGE_NOT_FOUND",
        metadata={"image": name},
    )


def other_content(name: str) -> AlreadyExists:
    """The name is taken."""
    return AlreadyExists(
        f"The image {name} is there already, with other content.",
        resolution="Import under another name, or replace it; containers made from it keep what they have.",
        reason="IMAGE_EXISTS",
        metadata={"image": name},
    )


def in_use(name: str, users: Sequence[User]) -> FailedPrecondition:
    """Containers were made from it."""
    shown = ", ".join(map(str, users[:10])) + (", …" if len(users) > 10 else "")
    made = "1 container was" if len(users) == 1 else f"{len(users)} containers were"
    return FailedPrecondition(
        f"The image {name} is in use: {made} made from it.",
        details=f"{shown}.",
        resolution="Destroy what was made from it first: `sysproc destroy ID`.",
        reason="IMAGE_IN_USE",
        metadata={"image": name, "containers": ",".join(user.id for user in users[:100])},
    )
