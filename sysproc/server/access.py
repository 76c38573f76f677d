"""Who may call what, and which field of a request names its target: read from the API's descriptors, once, at start.

A method without `caller`, a reference without `reach`, a reference that could be there many times: the server does
not start. What is declared is in `proto/`; health and reflection, which are not ours to annotate, have their rule
in a table here. The rules are applied to calls by `sysproc.server.interceptor`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from nightos.sysproc.v1 import access_pb2, ref_pb2
from nightos.sysproc.v1.access_pb2 import CALLER_ANYONE, CALLER_AUTHORITY, CALLER_HOST, Caller, Reach

REFERENCE: Descriptor = ref_pb2.ContainerRef.DESCRIPTOR

# Services of gRPC itself: their methods carry no option of ours.
FOREIGN: Mapping[str, "Caller.ValueType"] = {
    "grpc.health.v1.Health": CALLER_ANYONE,
    "grpc.reflection.v1alpha.ServerReflection": CALLER_AUTHORITY,
}
# References that may mean the host, which is no container: where a parent or an owner is named, or all are listed.
MAY_BE_HOST = frozenset(
    {
        "nightos.sysproc.v1.CreateContainerRequest.parent",
        "nightos.sysproc.v1.ListContainersRequest.below",
        "nightos.sysproc.v1.CreateVolumeRequest.owner",
        "nightos.sysproc.v1.CreateVolumeFromRequest.Header.owner",
        "nightos.sysproc.v1.ListVolumesRequest.below",
        "nightos.sysproc.v1.VolumeRef.owner",
        "nightos.sysproc.v1.CloneVolumeRequest.owner",
        "nightos.sysproc.v1.ImportVolumeRequest.Header.owner",
        "nightos.sysproc.v1.SnapshotVolumeRequest.owner",
    }
)


class AccessUndeclared(Exception):
    """The API does not say who may call something: the server must not start."""


@dataclass(frozen=True)
class Reference:
    """A field by which a request names a container: the names that lead to it, and how far it may reach."""

    path: tuple[str, ...]
    reach: "Reach.ValueType"
    may_be_host: bool

    @property
    def name(self) -> str:
        """`start.container`"""
        return ".".join(self.path)

    def is_in(self, request: Message) -> bool:
        """Whether the message that would hold it is there: of several in a oneof only one is."""
        message: Any = request
        for field in self.path[:-1]:
            if not message.HasField(field):
                return False
            message = getattr(message, field)
        return True

    def in_request(self, request: Message) -> ref_pb2.ContainerRef | None:
        """The reference that a request holds here; None if it is absent."""
        message: Any = request
        for field in self.path:
            if not message.HasField(field):
                return None
            message = getattr(message, field)
        return message  # type: ignore[no-any-return]  # the descriptor says that it is a ContainerRef


@dataclass(frozen=True)
class Method:
    """One method of the wire: its path `/package.Service/Name`, its messages, who may call it, what it names."""

    path: str
    name: str
    caller: "Caller.ValueType"
    references: tuple[Reference, ...]
    request: type[Message]
    response: type[Message]
    client_streaming: bool
    server_streaming: bool

    @property
    def openings(self) -> frozenset[str]:
        """In a stream of requests: the top-level fields that name a target. The first message has one, no other."""
        return frozenset(reference.path[0] for reference in self.references) if self.client_streaming else frozenset()


def methods(service: ServiceDescriptor) -> Iterator[Method]:
    """All methods of a service with their rules; raises AccessUndeclared."""
    for method in service.methods:
        yield Method(
            path=f"/{service.full_name}/{method.name}",
            name=f"{service.name}/{method.name}",
            caller=declared_caller(service, method),
            references=tuple(references(method.input_type)),
            request=GetMessageClass(method.input_type),
            response=GetMessageClass(method.output_type),
            client_streaming=method.client_streaming,
            server_streaming=method.server_streaming,
        )


def declared_caller(service: ServiceDescriptor, method: MethodDescriptor) -> "Caller.ValueType":
    """Who may call a method, by its option or, of gRPC's own services, by the table."""
    if service.full_name in FOREIGN:
        return FOREIGN[service.full_name]
    caller = method.GetOptions().Extensions[access_pb2.caller]
    if caller not in (CALLER_ANYONE, CALLER_AUTHORITY, CALLER_HOST):
        raise AccessUndeclared(f"{method.full_name} does not say who may call it: option (caller)")
    return caller


def references(message: Descriptor) -> Iterator[Reference]:
    """Every reference that a request can hold, wherever it is."""
    for path in paths(message, (), False, (message,)):
        field = path[-1]
        reach = field.GetOptions().Extensions[access_pb2.reach]
        if reach not in (access_pb2.REACH_SELF_OR_BELOW, access_pb2.REACH_BELOW):
            raise AccessUndeclared(f"{field.full_name} does not say how far it may reach: option (reach)")
        yield Reference(tuple(step.name for step in path), reach, field.full_name in MAY_BE_HOST)


Path = tuple[FieldDescriptor, ...]


def paths(message: Descriptor, above: Path, repeated: bool, inside: Sequence[Descriptor]) -> Iterator[Path]:
    """The fields that lead to each ContainerRef; raises AccessUndeclared for one below `repeated` or `map`.

    A message inside itself is not entered again: a reference there would be found at any depth, so it is refused.
    """
    for field in message.fields:
        kind, many = field.message_type, repeated or field.is_repeated
        if kind is None:
            continue
        if kind is REFERENCE and many:
            raise AccessUndeclared(f"{field.full_name} names a container below `repeated` or `map`")
        if kind is REFERENCE:
            yield (*above, field)
        elif kind not in inside:
            yield from paths(kind, (*above, field), many, (*inside, kind))
        elif REFERENCE in within(kind):
            raise AccessUndeclared(f"{field.full_name} repeats a message that names a container")


def within(message: Descriptor) -> frozenset[Descriptor]:
    """A message and all messages that can be inside it."""
    found, new = {message}, [message]
    while new:
        inside = [field.message_type for field in new.pop().fields if field.message_type is not None]
        new += [kind for kind in inside if kind not in found]
        found.update(inside)
    return frozenset(found)


@dataclass(frozen=True)
class Served:
    """A method and what answers it: `function(request or requests, call)`, as `sysproc.server.interceptor` calls it."""

    method: Method
    function: Callable[..., Any]


def served(service: ServiceDescriptor, servicer: object) -> Iterator[Served]:
    """The methods of a service and the servicer's functions of the same names; raises AccessUndeclared.

    gRPC's own services may get methods that we do not know yet: these are not served.
    """
    for method in methods(service):
        function = getattr(servicer, method.path.rpartition("/")[2], None)
        if function is None and service.full_name in FOREIGN:
            continue
        if function is None:
            raise AccessUndeclared(f"nothing answers {method.path}")
        yield Served(method, function)


def stale_hosts(services: Iterable[ServiceDescriptor]) -> frozenset[str]:
    """Entries of MAY_BE_HOST that no request of these services has: a field was renamed."""
    inputs = {method.input_type for service in services for method in service.methods}
    messages = frozenset[Descriptor]().union(*map(within, inputs))
    return MAY_BE_HOST - {field.full_name for message in messages for field in message.fields}
