"""No call takes a path of the host into a container: each string of each request is tried with such paths.

Requests are found by their descriptors, so that one which is added is tried as well. Shown by effect: a secret that
lies in a directory of the host is in no answer and in no container, nothing is mounted in one but files of the
service's own, and the host's directory and mounts are as they were. Where a mount may go is `test_mount_targets`.
"""

import importlib
import pkgutil
import secrets
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

import nightos.sysproc.v1 as api
from nightos.sysproc.v1.ref_pb2 import ContainerRef
from nightos.sysproc.v1.volume_pb2 import VolumeRef
from sysproc_client import AlreadyExists, Client, Container
from tests.e2e.daemon import RunningDaemon
from tests.e2e.inside import init_of

API = "nightos.sysproc.v1"
TEXTS = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
# What takes so many of these, likeliest first, takes any text, and they have come to nothing.
MOST_ACCEPTED = 3
# A call that waits for something else is ended after this.
PATIENCE_S = 3.0
# Whatever else is wrong with a request, the service has an answer to it.
CRASHED = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)
# What init has mounted that is of no disk.
OF_THE_KERNEL = {"tmpfs", "proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2"}

Path_ = tuple[FieldDescriptor, ...]


def all_methods() -> Iterator[MethodDescriptor]:
    """Every method of the API."""
    for module in pkgutil.iter_modules(api.__path__):
        if module.name.endswith("_service_pb2"):
            descriptor = importlib.import_module(f"{API}.{module.name}").DESCRIPTOR
            for service in descriptor.services_by_name.values():
                yield from service.methods


def texts_of(message: Descriptor, above: Path_ = ()) -> Iterator[Path_]:
    """The way to each string and each bytes in a message, whatever it is in."""
    for field in message.fields:
        if field.type in TEXTS:
            yield (*above, field)
        elif field.message_type is not None and field.message_type not in [one.message_type for one in above]:
            yield from texts_of(field.message_type, (*above, field))


def names_of(way: Path_) -> str:
    """As people write it."""
    return ".".join(field.name for field in way)


METHODS = sorted(all_methods(), key=lambda method: str(method.full_name))


@dataclass(frozen=True)
class Secret:
    """On the host: a directory with a file with a word in it, and a link to the directory."""

    directory: Path
    word: str

    @property
    def paths(self) -> Sequence[bytes]:
        """By which one might get at it, or at something else of the host."""
        place = str(self.directory)
        written = [place, f"/proc/1/root{place}", f"../../../../../../../..{place}/file", f"{place}/link"]
        written += [f"/proc/self/root{place}/file", "/etc/passwd", "../../etc", "/proc/self/root"]
        written += ["/", f"{place}\0/file", f"{place}/" + "x" * 5000, f"/link{place}"]
        return [one.encode() for one in written]

    def is_untouched(self) -> bool:
        """Whether everything is there that was, and no more."""
        names = sorted(one.name for one in self.directory.iterdir())
        return names == ["file", "link"] and (self.directory / "file").read_text() == self.word


@pytest.fixture
def secret(tmp_path: Path) -> Secret:
    found = Secret(tmp_path, secrets.token_hex(16))
    (tmp_path / "file").write_text(found.word)
    (tmp_path / "link").symlink_to(tmp_path)
    return found


def exemplary(message: Descriptor, box: Container) -> Message:
    """A request that may well be carried out."""
    made = GetMessageClass(message)()
    for field in message.fields:
        if field.containing_oneof is not None and made.WhichOneof(field.containing_oneof.name):
            continue
        if field.message_type is not None:
            if not field.is_repeated and field.message_type.file.package == API:
                getattr(made, field.name).CopyFrom(example_of(field.message_type, box))
        elif (value := EXAMPLES.get(field.full_name, EXAMPLES.get(field.name))) is not None:
            put(made, field, value() if callable(value) else value)
    return made


EXAMPLES: dict[str, Any] = {
    "name": lambda: f"n{secrets.token_hex(4)}",
    f"{API}.Volume.size_bytes": 16 << 20,
    f"{API}.GrowVolumeRequest.size_bytes": 16 << 20,
    "path": b"/srv/here",
    "request_id": lambda: str(uuid.uuid4()),
    "exec_id": lambda: str(uuid.uuid4()),
    "argv": b"/bin/true",
    "rows": 24,
    "columns": 80,
}


def example_of(message: Descriptor, box: Container) -> Message:
    if message == ContainerRef.DESCRIPTOR:
        return box.ref
    if message == VolumeRef.DESCRIPTOR:
        return VolumeRef(name="data")
    return exemplary(message, box)


def put(message: Message, field: FieldDescriptor, value: Any) -> None:
    """One value, as the field has it; a string that cannot be one is left out by its own encoder."""
    if isinstance(value, bytes) and field.type == FieldDescriptor.TYPE_STRING:
        value = value.decode()
    if field.is_repeated:
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)


def with_text(request: Message, way: Path_, value: bytes) -> Message:
    """The same request, with this one text instead."""
    *above, last = way
    at: Any = request
    for field in above:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            other = {"key": "value", "value": "key"}[last.name]
            texts = {last.name: value.decode(), other: "k"}
            getattr(at, field.name)[texts["key"]] = texts["value"]
            return request
        at = getattr(at, field.name).add() if field.is_repeated else getattr(at, field.name)
    at.ClearField(last.name)
    put(at, last, value)
    return request


def stream_of(first: Message, request: Message) -> Iterator[Message]:
    """What begins such a stream, and then the request, unless that is what begins one."""
    for group in first.DESCRIPTOR.oneofs:
        if first.WhichOneof(group.name) != request.WhichOneof(group.name):
            yield first
    yield request


def ask(channel: grpc.Channel, method: MethodDescriptor, *requests: Message) -> tuple[grpc.StatusCode, bytes]:
    """Call it; a status and all that was answered."""
    kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    name = f"/{method.containing_service.full_name}/{method.name}"
    call = getattr(channel, kind)(name, request_serializer=lambda one: one.SerializeToString())
    said = b""
    try:
        answer = call(stream_of(*requests) if method.client_streaming else requests[1], timeout=PATIENCE_S)
        for part in answer if method.server_streaming else [answer]:
            said += part
    except grpc.RpcError as failure:  # which is a call, too: the stubs do not say so
        ended = cast("grpc.Call", failure)
        return ended.code(), said + ended.details().encode()
    return grpc.StatusCode.OK, said


def is_there(client: Client, box: Container | None) -> Container:
    """The container with its volume, running and alone, whatever the call before has done."""
    boxes = {one.id: one for one in client.list()}
    found = None if box is None else boxes.pop(box.id, None)
    for one in boxes.values():
        one.destroy()
    if found is None:
        found = client.create()
        found.run(["ln", "-s", "/", "/link"])
    elif found.state == "frozen":
        found.thaw()
    elif found.state == "stopped":
        found.start()
    with suppress(AlreadyExists):
        client.volumes.create("data", size="16M")
    return found


SEARCH = """
for at in $(cut -d' ' -f2 /proc/mounts); do
    case $at in /proc*|/sys*) ;; *) find "$at" -xdev -type f -exec grep -l "$0" {} + ;; esac
done
"""


def holding(box: Container, word: str) -> list[bytes]:
    """The files of a container in which a word is."""
    return box.run(["sh", "-c", SEARCH, word]).stdout.splitlines()


def foreign_mounts(box: Container, state_dir: Path) -> list[str]:
    """What init has mounted that is neither the kernel's nor in a file of the service."""
    found = []
    for line in Path(f"/proc/{init_of(box)}/mountinfo").read_text().splitlines():
        kind, source = line.partition(" - ")[2].split()[:2]
        backing = Path("/sys/block", Path(source).name, "loop/backing_file")
        ours = backing.exists() and backing.read_text().startswith(str(state_dir))
        if kind not in OF_THE_KERNEL and not ours:
            found.append(line)
    return found


def nothing_has_got_in(client: Client, daemon: RunningDaemon, secret: Secret) -> None:
    """Neither into the containers that run, nor out of them."""
    for one in client.list():
        if one.state == "running":
            assert foreign_mounts(one, daemon.state_dir) == []
            assert holding(one, secret.word) == []
    assert secret.is_untouched()


def clear(client: Client) -> None:
    for box in client.list():
        if not box.parent_id:
            box.destroy()
    for volume in client.volumes.list():
        volume.delete()
    for image in client.images.list():
        if image.name != "busybox":
            client.images.delete(image.name)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_no_text_of_a_request_is_a_path_of_the_host(
    client: Client, daemon: RunningDaemon, secret: Secret, method: MethodDescriptor
) -> None:
    box = is_there(client, None)
    with grpc.insecure_channel(daemon.endpoint.replace("unix://", "unix:")) as channel:
        for way in texts_of(method.input_type):
            accepted = 0
            for value in secret.paths:
                first = exemplary(method.input_type, box)
                request = with_text(exemplary(method.input_type, box), way, value)
                code, said = ask(channel, method, first, request)
                assert code not in CRASHED, (names_of(way), value, code, said)
                assert secret.word.encode() not in said, (names_of(way), value)
                if code == grpc.StatusCode.OK:
                    nothing_has_got_in(client, daemon, secret)
                    box, accepted = is_there(client, box), accepted + 1
                if accepted == MOST_ACCEPTED:
                    break
    assert secret.is_untouched()
    assert str(secret.directory) not in Path("/proc/self/mountinfo").read_text()
    clear(client)


def test_what_is_looked_for_is_found_where_it_is(client: Client, secret: Secret) -> None:
    """The search would find the secret in the root and in a volume."""
    box = client.create()
    data = client.volumes.create("data", size="16M")
    data.mount(box, "/srv")
    for path in ("/root-file", "/srv/file"):
        box.run(["sh", "-c", f"echo {secret.word} >{path}"])
    assert holding(box, secret.word) == [b"/root-file", b"/srv/file"]
    box.destroy()
    clear(client)


def test_every_text_is_tried() -> None:
    """The descriptors are walked wholly: some that are deep in a request, and one of each service, are known."""
    names = {f"{method.name}.{names_of(way)}" for method in METHODS for way in texts_of(method.input_type)}
    assert {
        "MountVolume.path",
        "MountVolume.volume.owner.path",
        "CreateVolume.volume.filesystems.label",
        "CreateContainer.container.labels.value",
        "Exec.start.working_directory",
        "ImportImage.header.name",
    } <= names
