"""Every kind of error has its gRPC status, and whatever an error says, clients can receive it."""

import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from sysproc import errors
from sysproc.errors import FieldViolation, InvalidArgument, Kind, SysprocError
from sysproc.server.status import CODES, DETAILS_BYTES, MESSAGE_BYTES, WireStatus, cut, wire_status

texts = st.text(max_size=5000)
pairs = st.lists(st.tuples(texts, texts), max_size=30)
kinds = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, SysprocError)]


def wire_size(text: str) -> int:
    """The bytes that a text takes as grpc-message, percent-encoded."""
    return sum(
        1 if " " <= character <= "~" and character != "%" else 3 * len(character.encode(errors="replace"))
        for character in text
    )


def unpacked(wire: WireStatus) -> tuple[Status, ErrorInfo, BadRequest]:
    ((key, raw),) = wire.trailers
    assert key == "grpc-status-details-bin"
    status, info, bad = Status.FromString(raw), ErrorInfo(), BadRequest()
    assert status.details[0].Unpack(info)
    for detail in status.details[1:]:
        assert detail.Unpack(bad)
    return status, info, bad


def test_the_table_has_every_kind() -> None:
    assert set(CODES) == set(Kind)


@pytest.mark.parametrize("kind", kinds)
def test_an_error_carries_reason_domain_code_and_what_to_do(kind: type[SysprocError]) -> None:
    wire = wire_status(kind("It went wrong.", details="Badly.", resolution="Do better.", metadata={"path": "/x"}))
    status, info, _ = unpacked(wire)
    assert wire.message == status.message == "It went wrong. Badly. Do better."
    assert (info.reason, info.domain) == (kind.reason, "sysproc.nightos")
    assert dict(info.metadata) == {
        "nightos_code": f"0x{kind.kind.value:04x}",
        "resolution": "Do better.",
        "path": "/x",
    }
    assert status.code == wire.code.value[0]


def test_violations_become_a_bad_request() -> None:
    violations = [FieldViolation("container.name", "is no name"), FieldViolation("request_id", "is no UUID")]
    _, _, bad = unpacked(wire_status(InvalidArgument("Bad.", resolution="Mend.", violations=violations)))
    assert [(one.field, one.description) for one in bad.field_violations] == [
        ("container.name", "is no name"),
        ("request_id", "is no UUID"),
    ]


@given(texts, texts, texts, st.dictionaries(st.text(max_size=50), texts, max_size=20), pairs)
def test_no_error_is_too_large_for_a_client(
    brief: str, details: str, resolution: str, metadata: dict[str, str], violations: list[tuple[str, str]]
) -> None:
    found = [FieldViolation(*one) for one in violations]
    error = InvalidArgument(brief, details=details, resolution=resolution, metadata=metadata, violations=found)
    wire = wire_status(error)
    assert len(wire.trailers[0][1]) <= DETAILS_BYTES + MESSAGE_BYTES + 200
    assert wire_size(wire.message) <= MESSAGE_BYTES + 3
    unpacked(wire)


@given(texts)
def test_a_text_is_cut_only_if_it_has_to_be(text: str) -> None:
    assert (cut(text, MESSAGE_BYTES) == text) == (wire_size(text) <= MESSAGE_BYTES)
