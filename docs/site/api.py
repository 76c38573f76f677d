"""The reference of the API as Markdown pages: one a service, one for what they have in common.

Every service, method, message, field, enum and value has an anchor, and its comment. What may have none is a field
whose type says what it is, and what a method is asked with or answers. How files are read is in
`docs.site.descriptors`.
"""

from collections.abc import Iterator, Mapping
from functools import cache

from google.api.field_behavior_pb2 import OUTPUT_ONLY, field_behavior
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

from docs.site.comments import as_markdown, inline
from docs.site.descriptors import PACKAGE, Field, File, Message, Method, Service, Value, files
from nightos.sysproc.v1 import access_pb2 as access

INDEX = """# The API

gRPC, package `nightos.sysproc.v1`; made of the comments in `proto/nightos/sysproc/v1`, which are the contract. The
socket also has `grpc.health.v1` and reflection. Who may call a method is said at it ([Caller](#{caller})), which
containers a reference may name at the field ([Reach](#{reach})).
"""
# What every enum has, and no answer of this version.
NOT_SET = " Not set."
NAMED = {
    "access": "Who may call, and whom",
    "ref": "References",
    "container": "What a container is",
    "volume": "What a volume is",
}


def pages() -> dict[str, str]:
    """By name: each page's text."""
    services = [file for file in files() if file.services]
    links = [f"- [{one.name}]({file.name}.md): {first_sentence(one)}" for file in services for one in file.services]
    caller, reach = target("Caller"), target("Reach")
    types = [
        f"- [{NAMED.get(file.name, file.name)}](types.md#{heading(file)})" for file in files() if not file.services
    ]
    toctree = ["```{toctree}", ":hidden:", *(file.name for file in services), "types", "```"]
    index = "\n".join([INDEX.format(caller=caller, reach=reach), *links, *types, "", *toctree])
    found = {file.name: "\n".join(service_page(file)) for file in services}
    return {"index": index, "types": "\n".join(types_page()), **found}


def service_page(file: File) -> Iterator[str]:
    """A file with a service: its methods, then their messages."""
    for service in file.services:
        yield from (anchor(service.name), f"# {service.name}", "", markdown(file.comment), "")
        yield from (markdown(service.comment), "")
        for method in file.methods[service.name]:
            yield from method_section(method)
    yield from ("## Messages", "", *declared(file))


def types_page() -> Iterator[str]:
    """The files without a service."""
    yield "# Types\n"
    for file in files():
        if not file.services:
            yield from (f"({heading(file)})=", f"## {NAMED.get(file.name, file.name)}", "", markdown(file.comment), "")
            yield from declared(file)


def heading(file: File) -> str:
    """The anchor of a file's part of the page."""
    return f"types-{file.name}"


def method_section(method: Method) -> Iterator[str]:
    """A method: what goes in and out, who may call it."""
    of = method.of
    streams = {True: "stream of ", False: ""}
    yield from (anchor(method.name), f"## {of.name}", "")
    asked = f"{streams[of.client_streaming]}{type_link(of.input_type)}"
    yield f"{asked} → {streams[of.server_streaming]}{type_link(of.output_type)}  "
    caller = access.Caller.Name(of.options.Extensions[access.caller])
    yield from (f"May be called by: [{caller}](#{target(f'Caller.{caller}')})", "", markdown(method.comment), "")


def declared(file: File) -> Iterator[str]:
    """Messages and enums of a file."""
    for message in file.messages:
        yield from (anchor(message.name), f"### {message.name}", "", markdown(message.comment) or used_by(message), "")
        for field in file.fields[message.name]:
            yield from member(field, f"`{field.of.name}` {' · '.join(traits(message, field))}", comment_of(field))
    for enum in file.enums:
        yield from (anchor(enum.name), f"### {enum.name}", "", markdown(enum.comment), "")
        for value in file.values[enum.name]:
            yield from member(value, f"`{value.of.name}` · {value.of.number}", value.comment or NOT_SET)


def member(one: Field | Value, head: str, comment: str) -> Iterator[str]:
    """One item of a definition list, with its anchor."""
    text = markdown(comment).replace("\n", "\n  ")
    yield from (anchor(one.name), head, f": {text}", "")


def comment_of(field: Field) -> str:
    """A field's own, else what its type is."""
    return field.comment or declarations().get(type_name_of(field.of.type_name), "")


def traits(message: Message, field: Field) -> Iterator[str]:
    """Type, number, and what else holds for a field."""
    of = field.of
    entry = next((one for one in maps_of(message) if of.type_name.endswith(f".{message.name}.{one.name}")), None)
    if entry is not None:
        yield f"map of {kind(entry.field[0])} to {kind(entry.field[1])}"
    else:
        yield f"{'repeated ' if of.label == FieldDescriptorProto.LABEL_REPEATED else ''}{kind(of)}"
    yield f"{of.number}"
    if of.proto3_optional:
        yield "may be absent"
    elif of.HasField("oneof_index"):
        yield f"one of *{message.of.oneof_decl[of.oneof_index].name}*"
    if OUTPUT_ONLY in of.options.Extensions[field_behavior]:
        yield "only in answers"
    if of.options.debug_redact:
        yield "never logged"
    if reach := of.options.Extensions[access.reach]:
        yield f"[{access.Reach.Name(reach)}](#{target(f'Reach.{access.Reach.Name(reach)}')})"


def maps_of(message: Message) -> Iterator[DescriptorProto]:
    """The messages that protoc makes for its maps."""
    return (one for one in message.of.nested_type if one.options.map_entry)


def kind(field: FieldDescriptorProto) -> str:
    """A field's type, linked where it is ours."""
    return (
        type_link(field.type_name)
        if field.type_name
        else FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    )


def type_link(full: str) -> str:
    """`.nightos.sysproc.v1.Limits`: a link; of others the name."""
    name = full.removeprefix(f".{PACKAGE}.")
    return f"`{full.removeprefix('.')}`" if name == full else f"[{name}](#{target(name)})"


def used_by(message: Message) -> str:
    """Of a message that is only there for a method: which."""
    for file in files():
        for method in (one for methods in file.methods.values() for one in methods):
            link = f"[{method.of.name}](#{target(method.name)})"
            if type_name_of(method.of.input_type) == message.name:
                return f"What {link} is asked with."
            if type_name_of(method.of.output_type) == message.name:
                return f"What {link} answers."
    return ""


def type_name_of(full: str) -> str:
    """Of `.nightos.sysproc.v1.Limits` what is behind the package; empty for a scalar."""
    return full.removeprefix(f".{PACKAGE}.")


@cache
def declarations() -> Mapping[str, str]:
    """Messages and enums by name, with their comments."""
    return {
        name: comment
        for file in files()
        for name, comment in (
            *((one.name, one.comment) for one in file.messages),
            *((one.name, one.comment) for one in file.enums),
        )
    }


@cache
def targets() -> Mapping[str, str]:
    """What comments may link to: anchors by the last part of the name, where that is one thing's only."""
    found: dict[str, list[str]] = {}
    for name in names():
        found.setdefault(name.rpartition(".")[2], []).append(target(name))
    return {name: where[0] for name, where in found.items() if len(where) == 1}


def names() -> Iterator[str]:
    """Of all that has an anchor."""
    yield from declarations()
    for file in files():
        yield from (one.name for one in file.services)
        yield from (one.name for several in file.methods.values() for one in several)
        yield from (one.name for several in file.fields.values() for one in several)
        yield from (one.name for several in file.values.values() for one in several)


def target(name: str) -> str:
    """The anchor of something: of `ExecRequest.Start` and a field `ExecRequest.start` another one each."""
    kind = "type" if name in declarations() else "api"
    return f"{kind}-{name}".replace(".", "-").replace("_", "-").lower()


def anchor(name: str) -> str:
    """The line that makes it."""
    return f"({target(name)})="


def markdown(comment: str) -> str:
    """A comment with links."""
    return as_markdown(comment, targets().get)


def first_sentence(one: Service) -> str:
    """Of a comment."""
    return inline(" ".join(one.comment.split()).partition(". ")[0].removesuffix("."), targets().get)
