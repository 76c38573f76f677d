"""The API says who may call what; where it does not, the server does not start."""

import itertools
from collections.abc import Iterable

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, MethodOptions

from nightos.sysproc.v1 import (
    access_pb2,
    container_service_pb2,
    image_service_pb2,
    process_service_pb2,
    ref_pb2,
    system_service_pb2,
    volume_service_pb2,
)
from nightos.sysproc.v1.access_pb2 import CALLER_AUTHORITY, CALLER_UNSPECIFIED, REACH_BELOW, REACH_SELF_OR_BELOW, Reach
from sysproc.server.access import AccessUndeclared, Method, methods, references, served, stale_hosts

OURS = [
    container_service_pb2.DESCRIPTOR.services_by_name["ContainerService"],
    process_service_pb2.DESCRIPTOR.services_by_name["ProcessService"],
    image_service_pb2.DESCRIPTOR.services_by_name["ImageService"],
    volume_service_pb2.DESCRIPTOR.services_by_name["VolumeService"],
    system_service_pb2.DESCRIPTOR.services_by_name["SystemService"],
]
REF = ".nightos.sysproc.v1.ContainerRef"
numbers = itertools.count()

OPTIONAL, REPEATED = FieldDescriptorProto.LABEL_OPTIONAL, FieldDescriptorProto.LABEL_REPEATED


def field(
    name: str,
    kind: str,
    label: "FieldDescriptorProto.Label.ValueType" = OPTIONAL,
    reach: "Reach.ValueType | int" = REACH_BELOW,
) -> FieldDescriptorProto:
    made = FieldDescriptorProto(name=name, number=next(numbers) + 1, label=label, type_name=kind)
    made.type = FieldDescriptorProto.TYPE_MESSAGE
    if reach and kind == REF:
        made.options.Extensions[access_pb2.reach] = reach  # type: ignore[misc]  # also numbers that the enum does not have
    return made


def service(
    *fields: FieldDescriptorProto, more: Iterable[DescriptorProto] = (), caller: int = CALLER_AUTHORITY
) -> ServiceDescriptor:
    """A service with one method whose request has these fields; `more` are messages nested in the request."""
    package = f"invented{next(numbers)}"
    file = FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    file.dependency.extend([ref_pb2.DESCRIPTOR.name, access_pb2.DESCRIPTOR.name])
    request = file.message_type.add(name="Request")
    request.field.extend(fields)
    request.nested_type.extend(more)
    for one in itertools.chain(request.field, *(nested.field for nested in request.nested_type)):
        if one.type_name.startswith("PACKAGE"):
            one.type_name = one.type_name.replace("PACKAGE", f".{package}.Request")
    method = file.service.add(name="Service").method.add(name="Do", input_type="Request", output_type="Request")
    options = MethodOptions()
    if caller:
        options.Extensions[access_pb2.caller] = caller  # type: ignore[misc]  # also numbers that the enum does not have
    method.options.CopyFrom(options)
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    return descriptor_pool.Default().FindServiceByName(f"{package}.Service")


def only(described: ServiceDescriptor) -> Method:
    (method,) = methods(described)
    return method


def test_every_method_of_the_api_has_its_access() -> None:
    found = {method.name: [one.name for one in method.references] for one in OURS for method in methods(one)}
    assert len(found) == sum(len(one.methods) for one in OURS)
    assert found["ProcessService/Exec"] == ["start.container", "attach.container"]
    assert found["ContainerService/CreateContainer"] == ["parent"]
    assert found["SystemService/WhoAmI"] == []


# They name no container, and nothing that another caller could have.
CHOSEN_BY_CLIENTS = ("request_id", "exec_id", "export_id", "transfer_id")


def test_only_references_name_containers_in_requests() -> None:
    """No id and no name of a container can walk past the authorization."""
    loose = [
        one.full_name
        for described in OURS
        for method in described.methods
        for one in method.input_type.fields
        if one.name.endswith(("_id", "_ref")) and one.name not in CHOSEN_BY_CLIENTS
    ]
    assert loose == []


def test_the_references_that_may_mean_the_host_exist() -> None:
    assert stale_hosts(OURS) == frozenset()


def test_a_reference_is_found_at_any_depth_with_its_reach() -> None:
    inner = DescriptorProto(name="Inner", field=[field("target", REF, reach=REACH_SELF_OR_BELOW)])
    method = only(service(field("inner", "PACKAGE.Inner"), field("other", REF), more=[inner]))
    assert [(one.name, one.reach) for one in method.references] == [
        ("inner.target", REACH_SELF_OR_BELOW),
        ("other", REACH_BELOW),
    ]


def test_a_method_without_caller_is_refused() -> None:
    with pytest.raises(AccessUndeclared, match=r"Service\.Do does not say who may call it"):
        only(service(caller=CALLER_UNSPECIFIED))


def test_a_caller_of_a_future_version_is_refused() -> None:
    with pytest.raises(AccessUndeclared):
        only(service(caller=99))


@pytest.mark.parametrize("reach", [0, 99])
def test_a_reference_without_reach_is_refused(reach: int) -> None:
    with pytest.raises(AccessUndeclared, match=r"Request\.target does not say how far"):
        only(service(field("target", REF, reach=reach)))


def test_a_repeated_reference_is_refused() -> None:
    with pytest.raises(AccessUndeclared, match="below `repeated`"):
        only(service(field("targets", REF, REPEATED)))


def test_a_reference_in_a_repeated_message_is_refused() -> None:
    inner = DescriptorProto(name="Inner", field=[field("target", REF)])
    with pytest.raises(AccessUndeclared, match="below `repeated`"):
        only(service(field("inners", "PACKAGE.Inner", REPEATED), more=[inner]))


def test_a_reference_in_a_map_is_refused() -> None:
    key = FieldDescriptorProto(name="key", number=1, label=OPTIONAL, type=FieldDescriptorProto.TYPE_STRING)
    value = field("value", REF)
    value.number = 2
    entry = DescriptorProto(name="TargetsEntry", field=[key, value])
    entry.options.map_entry = True
    with pytest.raises(AccessUndeclared, match="below `repeated`"):
        only(service(field("targets", "PACKAGE.TargetsEntry", REPEATED), more=[entry]))


def test_a_message_inside_itself_is_refused_only_with_a_reference_in_it() -> None:
    plain = DescriptorProto(name="Tree", field=[field("left", "PACKAGE.Tree")])
    assert only(service(field("tree", "PACKAGE.Tree"), more=[plain])).references == ()
    naming = DescriptorProto(name="Tree", field=[field("left", "PACKAGE.Tree"), field("target", REF)])
    with pytest.raises(AccessUndeclared, match="repeats a message"):
        only(service(field("tree", "PACKAGE.Tree"), more=[naming]))


def test_a_method_that_nobody_answers_is_refused() -> None:
    with pytest.raises(AccessUndeclared, match="nothing answers"):
        list(served(service(), object()))


def test_the_reference_of_a_request_is_read_where_it_is() -> None:
    (start, attach) = references(process_service_pb2.ExecRequest.DESCRIPTOR)
    request = process_service_pb2.ExecRequest()
    request.attach.container.path = "a"
    assert (start.is_in(request), attach.is_in(request)) == (False, True)
    assert start.in_request(request) is None
    assert attach.in_request(request) == ref_pb2.ContainerRef(path="a")
