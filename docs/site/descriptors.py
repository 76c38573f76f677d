"""The API's files as protobuf itself reads them: descriptors, each with its comment.

What is written of them is in `docs.site.api`. Nothing of Sphinx is needed here.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from google.api import field_behavior_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    EnumValueDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

PROTO = Path(__file__).parents[2] / "proto"
PACKAGE = "nightos.sysproc.v1"

# Numbers of fields in descriptor.proto: of what a place in a file's SourceCodeInfo is made.
_MESSAGES, _ENUMS, _SERVICES, _SYNTAX = 4, 5, 6, 12
_FIELDS, _NESTED, _VALUES, _METHODS = 2, 3, 2, 2

Place = tuple[int, ...]
Comments = Mapping[Place, str]
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class Described(Generic[T_co]):
    """One thing that a file declares. name: with those of the messages that it is in: `ExecRequest.Start.argv`."""

    name: str
    of: T_co
    comment: str


Service = Described[ServiceDescriptorProto]
Method = Described[MethodDescriptorProto]
Message = Described[DescriptorProto]
Field = Described[FieldDescriptorProto]
Enum = Described[EnumDescriptorProto]
Value = Described[EnumValueDescriptorProto]


@dataclass(frozen=True)
class File:
    """One file, and all that it declares, in its order; what is in something is found by its name."""

    name: str
    comment: str
    services: list[Service] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    enums: list[Enum] = field(default_factory=list)
    methods: dict[str, list[Method]] = field(default_factory=dict)
    fields: dict[str, list[Field]] = field(default_factory=dict)
    values: dict[str, list[Value]] = field(default_factory=dict)


@cache
def files() -> tuple[File, ...]:
    """All files of the package, by name."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "api.binpb"
        common = Path(field_behavior_pb2.__file__).parents[2]
        sources = sorted(str(file) for file in (PROTO / PACKAGE.replace(".", "/")).glob("*.proto"))
        subprocess.run(
            [
                *(sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={PROTO}", f"--proto_path={common}"),
                *("--include_source_info", f"--descriptor_set_out={out}", *sources),
            ],
            check=True,
        )
        found = FileDescriptorSet.FromString(out.read_bytes())
    return tuple(read(file) for file in found.file)


def read(proto: FileDescriptorProto) -> File:
    """A file with its comments."""
    comments = {tuple(one.path): one.leading_comments for one in proto.source_code_info.location}
    file = File(Path(proto.name).stem, comments[_SYNTAX,])
    for path, service in described(proto.service, (_SERVICES,), "", comments):
        file.services.append(service)
        file.methods[service.name] = members(service.of.method, (*path, _METHODS), service.name, comments)
    for path, message in walk(proto, comments):
        file.messages.append(message)
        file.fields[message.name] = members(message.of.field, (*path, _FIELDS), message.name, comments)
    for path, enum in described(proto.enum_type, (_ENUMS,), "", comments):
        file.enums.append(enum)
        file.values[enum.name] = members(enum.of.value, (*path, _VALUES), enum.name, comments)
    return file


def walk(file: FileDescriptorProto, comments: Comments) -> Iterator[tuple[Place, Message]]:
    """All messages with their places, those inside of one after it; entries of maps are none."""
    waiting = [*described(file.message_type, (_MESSAGES,), "", comments)]
    while waiting:
        path, one = waiting.pop(0)
        assert not one.of.enum_type, "enums are declared by themselves"
        if not one.of.options.map_entry:
            yield path, one
            waiting[:0] = described(one.of.nested_type, (*path, _NESTED), one.name, comments)


class Named(Protocol):
    """What descriptors have in common."""

    @property
    def name(self) -> str:
        """As it is declared."""


N = TypeVar("N", bound=Named)


def described(
    things: Iterable[N], place: Place, inside: str, comments: Comments
) -> Iterator[tuple[Place, Described[N]]]:
    """Things of one kind with their places and comments."""
    for number, one in enumerate(things):
        path = (*place, number)
        yield path, Described(f"{inside}.{one.name}".removeprefix("."), one, comments.get(path, ""))


def members(things: Iterable[N], place: Place, inside: str, comments: Comments) -> list[Described[N]]:
    """What is in something."""
    return [one for _, one in described(things, place, inside, comments)]
