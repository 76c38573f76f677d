"""What a field may hold by itself: everything that is wrong is said at once, with the field's path."""

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st

from nightos.sysproc.v1 import container_service_pb2 as service
from nightos.sysproc.v1.container_pb2 import Container, EnvironmentVariable, Limits
from sysproc.errors import InvalidArgument
from sysproc.server.convert import containers as convert
from sysproc.server.validate import is_name


def wrong(request: service.CreateContainerRequest) -> dict[str, str]:
    """What is wrong with a request, by field."""
    try:
        convert.wanted_from_proto(request, None, None)
    except InvalidArgument as error:
        return {one.field: one.description for one in error.violations}
    return {}


def creating(**fields: object) -> service.CreateContainerRequest:
    return service.CreateContainerRequest(container=Container(**fields))  # type: ignore[arg-type]  # any field


@pytest.mark.parametrize("name", ["a", "0", "a" * 63, "web-1.x_y", "0123456789abcde", "0123456789abcdeg"])
def test_a_name_may_be(name: str) -> None:
    assert is_name(name)
    assert wrong(creating(name=name)) == {}


@pytest.mark.parametrize(
    "name",
    ["A", "-a", ".", "..", "a/b", "a b", "a" * 64, "ä", "a\n", "\0", "0123456789abcdef", "a\u202e", " "],
)
def test_a_name_may_not_be(name: str) -> None:
    assert not is_name(name)
    assert list(wrong(creating(name=name))) == ["container.name"]


@pytest.mark.parametrize("hostname", ["a", "A-1.b", "a" * 63, "a" * 31 + "." + "b" * 32])
def test_a_hostname_may_be(hostname: str) -> None:
    assert wrong(creating(hostname=hostname)) == {}


@pytest.mark.parametrize("hostname", ["a_b", ".", "a.", "a..b", "a" * 64, "a." * 32 + "a", "ä", "a\n", "\0"])
def test_a_hostname_may_not_be(hostname: str) -> None:
    assert list(wrong(creating(hostname=hostname))) == ["container.hostname"]


MOST = 2**64 - 1


@pytest.mark.parametrize(
    ("field", "value", "good"),
    [
        ("memory_bytes", 4 * 2**20, True),
        ("memory_bytes", 4 * 2**20 - 1, False),
        ("memory_bytes", 0, False),
        ("memory_bytes", MOST, False),
        ("cpu_millis", 10, True),
        ("cpu_millis", 9, False),
        ("cpu_millis", 2**32 - 1, False),
        ("pids", 4, True),
        ("pids", 3, False),
        ("pids", 0, False),
        ("pids", 2**32 - 1, False),
        ("root_bytes", 2**30, True),
        ("root_bytes", 0, False),
        ("root_bytes", MOST, False),
    ],
)
def test_a_limit_is_sensible_or_refused(field: str, value: int, good: bool) -> None:
    found = wrong(creating(limits=Limits(**{field: value})))
    assert list(found) == ([] if good else [f"container.limits.{field}"])


@pytest.mark.parametrize(
    ("labels", "good"),
    [
        ({"a": ""}, True),
        ({"k" * 63: "v" * 256}, True),
        ({f"k{number}": "v" for number in range(64)}, True),
        ({f"k{number}": "v" for number in range(65)}, False),
        ({"": "v"}, False),
        ({"k" * 64: "v"}, False),
        ({"k k": "v"}, False),
        ({"k": "v" * 257}, False),
        ({"k": "ä" * 129}, False),
    ],
)
def test_labels_have_bounds(labels: dict[str, str], good: bool) -> None:
    assert (wrong(creating(labels=labels)) == {}) == good


@pytest.mark.parametrize(
    ("variables", "field"),
    [
        ([(b"A", b"1"), (b"B", b"\xff=")], None),
        ([(b"", b"1")], "container.environment[0].name"),
        ([(b"A=B", b"1")], "container.environment[0].name"),
        ([(b"A", b"1"), (b"A", b"2")], "container.environment[1].name"),
        ([(b"A\0", b"1")], "container.environment[0]"),
        ([(b"A", b"1\0")], "container.environment[0]"),
        ([(b"A", b"x" * 131072)], "container.environment[0]"),
        ([(b"A%d" % number, b"x" * 100_000) for number in range(30)], "container.environment"),
    ],
)
def test_an_environment_is_one_that_the_kernel_takes(variables: list[tuple[bytes, bytes]], field: str | None) -> None:
    messages = [EnvironmentVariable(name=name, value=value) for name, value in variables]
    found = wrong(creating(environment=messages))
    assert list(found) == ([] if field is None else [field])
    assert not any("xxx" in why for why in found.values())  # a value may be a secret


@pytest.mark.parametrize(
    ("request_id", "good"),
    [
        ("", True),
        ("0f8fad5b-d9cb-469f-a165-70867728950e", True),
        ("0F8FAD5B-D9CB-469F-A165-70867728950E", True),
        ("0f8fad5bd9cb469fa16570867728950e", False),
        ("{0f8fad5b-d9cb-469f-a165-70867728950e}", False),
        ("x", False),
        ("x" * 100_000, False),
    ],
)
def test_a_request_id_is_a_uuid(request_id: str, good: bool) -> None:
    found = wrong(service.CreateContainerRequest(request_id=request_id))
    assert list(found) == ([] if good else ["request_id"])


def test_everything_that_is_wrong_is_said_at_once() -> None:
    request = creating(name="A", hostname="_", image="..", limits=Limits(pids=1), seccomp_profile=9)
    request.request_id = "x"
    with pytest.raises(InvalidArgument) as refused:
        convert.wanted_from_proto(request, None, None)
    assert {one.field for one in refused.value.violations} == {
        "container.name",
        "container.hostname",
        "container.image",
        "container.limits.pids",
        "container.seccomp_profile",
        "request_id",
    }
    assert "And 3 more." in str(refused.value)


@pytest.mark.parametrize(
    ("grace", "expected_s"),
    [
        (None, 10.0),
        (Duration(), 0.0),
        (Duration(seconds=1, nanos=500_000_000), 1.5),
        (Duration(seconds=3600), 3600.0),
        (Duration(seconds=3600, nanos=1), None),
        (Duration(seconds=-1), None),
        (Duration(nanos=-1), None),
        (Duration(seconds=1, nanos=-1), None),
        (Duration(seconds=1, nanos=2**31 - 1), None),
        (Duration(seconds=2**63 - 1), None),
    ],
)
def test_a_grace_period_is_between_nothing_and_an_hour(grace: Duration | None, expected_s: float | None) -> None:
    request = service.StopContainerRequest(grace=grace)
    if expected_s is None:
        with pytest.raises(InvalidArgument):
            convert.grace_from_proto(request)
    else:
        assert convert.grace_from_proto(request) == expected_s


@pytest.mark.parametrize(
    ("paths", "fields"),
    [
        (None, {"memory_bytes", "labels"}),
        ([], set()),
        (["labels"], {"labels"}),
        (["limits"], {"memory_bytes", "cpu_millis", "pids", "descendants", "depth", "storage_bytes"}),
        (["ttl", "idle_timeout", "limits.depth"], {"ttl_s", "idle_timeout_s", "depth"}),
        (["expire_time"], None),
        (["limits.pids", "labels"], {"pids", "labels"}),
        (["limits.root_bytes"], None),
        (["name"], None),
        (["container.labels"], None),
        (["*"], None),
        ([""], None),
    ],
)
def test_a_change_is_what_the_mask_names_or_else_what_is_there(
    paths: list[str] | None, fields: set[str] | None
) -> None:
    request = service.UpdateContainerRequest(
        container=Container(limits=Limits(memory_bytes=2**30, root_bytes=2**30), labels={"a": "b"}, name="other")
    )
    if paths is not None:
        request.update_mask.SetInParent()
        request.update_mask.paths.extend(paths)
    if fields is None:
        with pytest.raises(InvalidArgument, match="update_mask"):
            convert.change_from_proto(request, None)
    else:
        change = convert.change_from_proto(request, None)
        assert change.columns.keys() == fields
        assert change.columns.get("memory_bytes", 2**30) == 2**30
        assert change.columns.get("pids") is None


@given(st.binary(max_size=300))
def test_random_bytes_are_read_or_refused(raw: bytes) -> None:
    readers: list[tuple[Callable[[Any], object], type[Message]]] = [
        (lambda request: convert.wanted_from_proto(request, None, None), service.CreateContainerRequest),
        (lambda request: convert.change_from_proto(request, None), service.UpdateContainerRequest),
        (convert.listing_from_proto, service.ListContainersRequest),
        (convert.grace_from_proto, service.StopContainerRequest),
    ]
    for read, kind in readers:
        try:
            read(kind.FromString(raw))
        except (DecodeError, InvalidArgument):
            continue
