"""No field of the API is forgotten: each of a request reaches a verb, each of a response can be set.

Found by the descriptors: a field that is added to the API fails here until somebody converts it.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from google.api.field_behavior_pb2 import OUTPUT_ONLY, field_behavior
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from nightos.sysproc.v1 import container_service_pb2 as containers
from nightos.sysproc.v1 import image_service_pb2 as images
from nightos.sysproc.v1 import volume_service_pb2 as volumes
from nightos.sysproc.v1.container_pb2 import Container
from nightos.sysproc.v1.ref_pb2 import ContainerRef
from nightos.sysproc.v1.volume_pb2 import FILESYSTEM_TYPE_EROFS, Volume, VolumeRef
from nightos.sysproc.v1.volume_pb2 import Attachment as AttachmentMessage
from nightos.sysproc.v1.volume_pb2 import Filesystem as FilesystemMessage
from sysproc.errors import InvalidArgument
from sysproc.images import Imported, Progress
from sysproc.server.access import Method, Served, served
from sysproc.server.call import Call
from sysproc.server.container_service import ContainerService
from sysproc.server.image_service import ImageService
from sysproc.server.joined import Joined
from sysproc.server.peer import Caller
from sysproc.server.starts import Starts
from sysproc.server.volume_copy_service import VolumeCopyMethods
from sysproc.server.volume_service import VolumeService
from sysproc.server.volume_transfer_service import VolumeTransferMethods
from sysproc.storage.hierarchy import ContainerRow, NewContainer, Page
from sysproc.storage.images import Image, User
from sysproc.storage.volumes import Filesystem, NewVolume, SnapshotOf, VolumeRow
from sysproc.storage.volumes import Page as VolumePage
from sysproc.storage.vsf.pieces import Piece
from sysproc.volume_checks import Checked
from sysproc.volume_imports import Received
from sysproc.volume_keys import LockState
from sysproc.volume_mounts import Attachment
from sysproc.volume_packing import Packed, WantedPacked

UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
NEW = NewContainer(
    *(0, 7, "n", "h", "i", "d", 1, 2, 3, 4, ((b"A", b"b"),), {"a": "b"}, "strict"),
    *(5, 6, 2**40, False, 90.0, 80.0, "33,1000", True),
)
ROW = ContainerRow(
    **(vars(NEW) | {"id": 5}),
    state="stopped",
    reason="r",
    exit_code=None,
    exit_signal=9,
    oom_killed=True,
    uid_base=None,
    init_pid=None,
    init_start=None,
    keeper_pid=None,
    keeper_start=None,
    userns_ino=None,
    mntns_ino=None,
    created_at=1.5,
    started_at=2.5,
    stopped_at=3.5,
    created_revision=1,
    revision=2,
    expires_at=4.5,
)
EXITED = replace(ROW, exit_code=3, exit_signal=None, api_users="all")
IMAGE = Image("i", "ab" * 32, 1, 2, 3, 4, 5.5, 6, 7, {"trusted.a": 8})

OF = SnapshotOf("o", f"{9:016x}", 7.5)
ONE = Filesystem("data", "btrfs", 2**29, UUID, "zstd:3")
VOLUME = NewVolume(5, 7, "v", 2**30, (ONE,), "reparent", False, encryption="whole", snapshot=OF)
CHECKED = Checked("data", "clean", "what it said")
VOLUME_ROW = VolumeRow(**vars(VOLUME), state="ready", grown_from=None, created_at=1.5, created_revision=1, revision=2)


class Recorder:
    """Verbs that note their arguments."""

    def __init__(self, **answers: object) -> None:
        self.heard: list[object] = []
        self._answers = answers

    def __getattr__(self, name: str) -> Callable[..., Any]:
        answer = self._answers[name]

        async def verb(*args: object, **named: object) -> object:
            self.heard.append((name, args, named))
            return answer

        async def stream(*args: object, **named: object) -> AsyncIterator[object]:
            self.heard.append((name, args, named))
            for one in answer:  # type: ignore[attr-defined]  # a generator's
                yield one

        return stream if isinstance(answer, Iterator) else verb

    @asynccontextmanager
    async def opened(self, *args: object) -> AsyncIterator[object]:
        self.heard.append(("opened", args))
        half = SimpleNamespace(size_bytes=5, next_offset=6, wanted=SimpleNamespace(zstd=False))
        yield SimpleNamespace(state=half)

    async def pieces(self, _: object, *args: object) -> AsyncIterator[tuple[Piece, bytes]]:
        self.heard.append(("pieces", args))
        yield Piece(1, 3, b"abc"), b"abc"

    async def receive(self, _: object, piece: object) -> None:
        self.heard.append(("receive", piece))

    async def finish(self, _: object, *args: Any) -> object:
        *said, told = args
        self.heard.append(("finish", tuple(said)))
        told({"bytes": 1, "entries": 2})
        await asyncio.sleep(0.15)
        return Received(VOLUME_ROW, bytes(32), skipped=3)

    def abandon(self, key: object) -> None:
        self.heard.append(("abandon", key))

    async def as_they_are(self, rows: Sequence[ContainerRow]) -> Sequence[ContainerRow]:
        return rows

    async def import_image(self, name: str, chunks: AsyncIterator[bytes], **more: Any) -> Imported:
        self.heard.append((name, [chunk async for chunk in chunks], more["replace"], more["expected_digest"]()))
        more["progress"](Progress(1, 2, 3))
        await asyncio.sleep(0.15)
        return Imported(IMAGE, existed=True)

    async def create_from(self, asked: WantedPacked, chunks: AsyncIterator[bytes], digest: Any, told: Any) -> Packed:
        self.heard.append(("create_from", asked, [chunk async for chunk in chunks], digest()))
        told(Progress(1, 2, 3))
        await asyncio.sleep(0.15)
        return Packed(VOLUME_ROW, skipped_devices=3)


def container_verbs() -> Recorder:
    one = dict.fromkeys(("create", "update", "start", "stop", "freeze", "thaw"), ROW)
    return Recorder(
        **one,
        validate=NEW,
        list=Page((ROW, EXITED), "r1"),
        names=["a", "b"],
        doomed=[ROW],
        destroyed_before=[ROW],
        destroy=iter([ROW]),
    )


def image_verbs() -> Recorder:
    return Recorder(list=[IMAGE, IMAGE], get=(IMAGE, [User("c", "n")]), delete=None)


def volume_verbs() -> Recorder:
    one = dict.fromkeys(("create", "get", "grow", "shrink", "trust", "copy"), VOLUME_ROW)
    nowhere = {VOLUME_ROW.id: (Attachment(5, b"/data", "data", True, True, True, True),)}
    page = VolumePage((VOLUME_ROW,), "r1")
    mounts = {
        "attachments": nowhere,
        "mount": None,
        "unmount": None,
        "running": None,
        "attach": b"/dev/vsf/v",
        "detach": None,
    }
    state = LockState(unlocked=True, broken=True, key_slots=((1, 2),))
    keys = {"states": {VOLUME_ROW.id: state}, "state": state, "lock": None, "change": None}
    checks = {"check": iter([CHECKED])}
    transfers = {"kept": None, "prepare": None, "begin": None, "digest": bytes(32)}
    return Recorder(**one, **mounts, **keys, **checks, **transfers, validate=VOLUME, list=page, delete=None)


def volume_service(verbs: Any) -> Joined:
    return Joined(
        VolumeService(verbs, verbs, verbs, verbs, verbs, verbs, verbs, Starts(1)),
        VolumeCopyMethods(verbs, verbs, Starts(1)),
        VolumeTransferMethods(verbs, verbs, verbs, Starts(1)),
    )


def container_service(verbs: Any) -> ContainerService:
    return ContainerService(verbs, Starts(1))


SERVICES: list[tuple[Any, Callable[[], Recorder], Callable[[Any], object]]] = [
    (
        containers.DESCRIPTOR.services_by_name["ContainerService"],
        container_verbs,
        container_service,
    ),
    (images.DESCRIPTOR.services_by_name["ImageService"], image_verbs, ImageService),
    (volumes.DESCRIPTOR.services_by_name["VolumeService"], volume_verbs, volume_service),
]

FROM = volumes.CreateVolumeFromRequest
IMPORTED = volumes.ImportVolumeRequest.Header(name="v", request_id=str(uuid.UUID(int=7)))
TAR = images.ImportImageRequest(data=b"tar")
# Requests from which each field is changed in turn; where none is named, an empty one.
BEGIN: dict[str, list[Message]] = {
    "ListImages": [images.ListImagesRequest(page_size=1)],
    "UpdateContainer": [containers.UpdateContainerRequest(container=Container(labels={"a": "b"}))],
    "CreateVolume": [volumes.CreateVolumeRequest(volume=Volume(name="v", size_bytes=2**30))],
    "GetVolume": [volumes.GetVolumeRequest(volume=VolumeRef(name="v"))],
    "ListVolumes": [volumes.ListVolumesRequest(page_size=1)],
    "GrowVolume": [volumes.GrowVolumeRequest(volume=VolumeRef(name="v"), size_bytes=2**30)],
    "ShrinkVolume": [volumes.ShrinkVolumeRequest(volume=VolumeRef(name="v"), size_bytes=2**30)],
    "TrustVolume": [volumes.TrustVolumeRequest(volume=VolumeRef(name="v"))],
    "AttachVolume": [volumes.AttachVolumeRequest(volume=VolumeRef(name="v"))],
    "DetachVolume": [volumes.DetachVolumeRequest(volume=VolumeRef(name="v"))],
    "DeleteVolume": [volumes.DeleteVolumeRequest(volume=VolumeRef(name="v"))],
    "MountVolume": [volumes.MountVolumeRequest(volume=VolumeRef(name="v"), path=b"/a")],
    "LockVolume": [volumes.LockVolumeRequest(volume=VolumeRef(name="v"))],
    "ChangeVolumeKeys": [
        volumes.ChangeVolumeKeysRequest(
            volume=VolumeRef(name="v"), change=volumes.VOLUME_KEY_CHANGE_ADD, secret=b"s", new_secret=b"n"
        )
    ],
    "CloneVolume": [volumes.CloneVolumeRequest(volume=VolumeRef(name="v"), name="w")],
    "SnapshotVolume": [volumes.SnapshotVolumeRequest(volume=VolumeRef(name="v"), name="w")],
    "ExportVolume": [volumes.ExportVolumeRequest(volume=VolumeRef(name="v"), export_id=UUID)],
    "AbandonTransfer": [volumes.AbandonTransferRequest(transfer_id=UUID)],
    "ImportVolume": [
        volumes.ImportVolumeRequest(header=IMPORTED),
        volumes.ImportVolumeRequest(piece=volumes.Piece(size_bytes=3, data=b"abc")),
        volumes.ImportVolumeRequest(trailer=volumes.ImportVolumeRequest.Trailer(digest=bytes(32))),
    ],
    "UnmountVolume": [volumes.UnmountVolumeRequest(path=b"/a")],
    "CreateVolumeFrom": [
        FROM(header=FROM.Header(volume=Volume(name="v", filesystems=[FilesystemMessage(type=FILESYSTEM_TYPE_EROFS)]))),
        FROM(data=b"tar"),
        FROM(trailer=FROM.Trailer(digest=bytes(32))),
    ],
    "CheckVolume": [volumes.CheckVolumeRequest(volume=VolumeRef(name="v"))],
    "DeleteImage": [images.DeleteImageRequest(name="i")],
    "GetImage": [images.GetImageRequest(name="i")],
    "ImportImage": [
        images.ImportImageRequest(header=images.ImportImageRequest.Header(name="i")),
        TAR,
        images.ImportImageRequest(trailer=images.ImportImageRequest.Trailer(digest=bytes(32))),
    ],
}
# Valid, and other than the default and than what is in BEGIN.
SAMPLES: dict[str, Any] = {
    "name": "other",
    "hostname": "other",
    "secret": b"other",
    "new_secret": b"other",
    "change": 2,
    "encryption": 2,
    "image": "other",
    "request_id": UUID,
    "page_token": "r5",
    "etag": "9",
    "seccomp_profile": 2,
    "memory_bytes": 2**25,
    "cpu_millis": 500,
    "pids": 64,
    "root_bytes": 2**28,
    "page_size": 7,
    "digest": b"\1" * 32,
    "data": b"other",
    "path": b"/other",
    "size_bytes": 2**29,
    "filesystems": FilesystemMessage(label="other"),
    "on_destroy": 2,
    "ttl": Duration(seconds=90),
    "idle_timeout": Duration(seconds=90),
    "storage_bytes": 2**40,
    "encoding": 2,
    "sha256": b"other",
}
OF_TYPE: dict[int, Any] = {
    FieldDescriptor.TYPE_BOOL: True,
    FieldDescriptor.TYPE_ENUM: 1,
    FieldDescriptor.TYPE_STRING: "text",
}
# Fields that are ignored, and why.
IGNORED = {
    "CreateContainer container.etag": "there is nothing yet that somebody could have changed",
    **{
        f"UpdateContainer container.{name}": "others are ignored, says the API"
        for name in (
            *("name", "image", "hostname", "limits.root_bytes", "environment", "seccomp_profile"),
            *("api_users.all", "api_users.uids", "delegate"),
        )
    },
}


def leaves(message: Message, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The fields that hold values, at any depth; of a oneof only in the branch that is sent."""
    for field in message.DESCRIPTOR.fields:
        path = (*above, field)
        branch = field.containing_oneof is not None and len(field.containing_oneof.fields) > 1
        if field.message_type is ContainerRef.DESCRIPTOR or (branch and not message.HasField(field.name)):
            continue
        inner: Any = field.message_type
        if inner is not None and not field.is_repeated and inner.file.package != "google.protobuf":
            yield from leaves(getattr(message, field.name), path)
        else:
            yield path


def changed(message: Message, path: Sequence[Any]) -> Message:
    """A copy with one field set to another, valid value."""
    copy = type(message)()
    copy.CopyFrom(message)
    inner: Any = copy
    for step in path[:-1]:
        inner = getattr(inner, step.name)
    set_sample(inner, path[-1])
    return copy


def set_sample(message: Any, field: Any) -> None:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value["key"] = "value"
    elif field.message_type is None and field.is_repeated:
        value.append(SAMPLES.get(field.name, 77))
    elif field.message_type is not None and field.name in SAMPLES:
        value.append(SAMPLES[field.name]) if field.is_repeated else value.CopyFrom(SAMPLES[field.name])
    elif field.message_type is not None and field.is_repeated:
        inner = value.add()
        if "name" in inner.DESCRIPTOR.fields_by_name:
            inner.name = b"OTHER"
        else:
            set_sample(inner, inner.DESCRIPTOR.fields[0])
    elif field.message_type is not None:
        value.SetInParent()
    else:
        setattr(message, field.name, SAMPLES.get(field.name, OF_TYPE.get(field.type, 77)))


async def ask(service: Any, build: Callable[[], Recorder], make: Any, name: str, sent: list[Message]) -> Any:
    """What the verbs hear of a request, and the responses; what is wrong with it if it is refused."""
    verbs = build()
    one: Served = next(one for one in served(service, make(verbs)) if one.method.name.endswith(f"/{name}"))
    call = Call(one.method, Caller(None, 0, 1, authority=True), None, targets=targets(one.method))  # type: ignore[arg-type]
    request: Any = stream(sent) if one.method.client_streaming else sent[0]
    try:
        if one.method.server_streaming:
            responses = [response async for response in one.function(request, call)]
        else:
            responses = [await one.function(request, call)]
    except InvalidArgument as error:
        return str(error), []
    return verbs.heard, responses


def targets(method: Method) -> dict[str, ContainerRow | None]:
    """A container for whatever a request may name."""
    return {one.name: ROW for one in method.references} or {"it": ROW}


async def stream(messages: list[Message]) -> AsyncIterator[Message]:
    for message in messages:
        yield message


CASES = [
    pytest.param(service, build, make, method.name, id=method.name)
    for service, build, make in SERVICES
    for method in service.methods
]


@pytest.mark.parametrize(("service", "build", "make", "name"), CASES)
async def test_every_field_of_a_request_matters(service: Any, build: Any, make: Any, name: str) -> None:
    method = service.methods_by_name[name]
    begin = BEGIN.get(name, [getattr(containers, method.input_type.name, images.ListImagesRequest)()])
    heard, _ = await ask(service, build, make, name, begin)
    without_effect = []
    for position, message in enumerate(begin):
        for path in leaves(message):
            sent = [*begin[:position], changed(message, path), *begin[position + 1 :]]
            now, _ = await ask(service, build, make, name, sent)
            where = f"{name} {'.'.join(step.name for step in path)}"
            ignored = where in IGNORED or any(is_output_only(step) for step in path)
            if (now == heard) != ignored:
                without_effect.append(where)
    assert without_effect == []


def is_output_only(field: Any) -> bool:
    return OUTPUT_ONLY in field.GetOptions().Extensions[field_behavior]


@pytest.mark.parametrize(("service", "build", "make", "name"), CASES)
async def test_every_field_of_a_response_is_set_by_something(service: Any, build: Any, make: Any, name: str) -> None:
    method = service.methods_by_name[name]
    begin = BEGIN.get(name, [getattr(containers, method.input_type.name, images.ListImagesRequest)()])
    _, responses = await ask(service, build, make, name, begin)
    found: set[str] = set()
    for response in responses:
        found.update(set_fields(response))
    if name != "ListContainers":
        # Of two ways to end, and of two kinds of users, the rows here show one.
        found |= {"nightos.sysproc.v1.ExitStatus.code", "nightos.sysproc.v1.ApiUsers.all"}
    if name in (
        *("CreateVolume", "CreateVolumeFrom", "GrowVolume", "ShrinkVolume", "TrustVolume"),
        *("CloneVolume", "SnapshotVolume", "ImportVolume"),
    ):
        found |= MOUNTED | OPEN  # what was just made, or is in no use, is mounted nowhere
    if name == "ListVolumes":
        found |= {KEY_SLOTS}  # only of one that is asked for by itself
    assert sorted(all_fields(method.output_type) - found) == []


MOUNTED = {"nightos.sysproc.v1.Volume.attached_to"} | {
    f"nightos.sysproc.v1.Attachment.{field.name}" for field in AttachmentMessage.DESCRIPTOR.fields
}


KEY_SLOTS = "nightos.sysproc.v1.Filesystem.key_slots"
OPEN = {KEY_SLOTS, "nightos.sysproc.v1.Volume.unlocked", "nightos.sysproc.v1.Volume.broken"}


def set_fields(message: Message) -> Iterator[str]:
    for field, value in message.ListFields():
        yield field.full_name
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for inner in value if field.is_repeated else [value]:
            yield from set_fields(inner)


def all_fields(descriptor: Any) -> set[str]:
    found = set()
    for field in descriptor.fields:
        found.add(field.full_name)
        kind = field.message_type
        if kind is not None and not kind.GetOptions().map_entry and kind.file.package != "google.protobuf":
            found |= all_fields(kind)
    return found
