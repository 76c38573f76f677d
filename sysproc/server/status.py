"""Errors as they go over the wire: a canonical status, a sentence for people, google.rpc details for programs.

The one table from kinds of errors to gRPC codes. What an error says is decided where it is raised (`sysproc.errors`);
when it is sent, in `sysproc.server.interceptor`.
"""

from dataclasses import dataclass

import grpc
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

from sysproc.errors import Kind, SysprocError

DOMAIN = "sysproc.nightos"
DETAILS_KEY = "grpc-status-details-bin"

# Clients refuse trailers above 8 KiB, and a byte that is not plain ASCII takes three in the message.
MESSAGE_BYTES = 1500
DETAILS_BYTES = 3000
TEXT_CHARACTERS = 300
MOST_VIOLATIONS = 16

CODES: dict[Kind, grpc.StatusCode] = {
    Kind.PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Kind.INVALID_ARGUMENT: grpc.StatusCode.INVALID_ARGUMENT,
    Kind.INVALID_COMBINATION: grpc.StatusCode.INVALID_ARGUMENT,
    Kind.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Kind.ALREADY_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    Kind.FAILED_PRECONDITION: grpc.StatusCode.FAILED_PRECONDITION,
    Kind.ABORTED: grpc.StatusCode.ABORTED,
    Kind.OUT_OF_RANGE: grpc.StatusCode.OUT_OF_RANGE,
    Kind.RESOURCE_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Kind.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Kind.UNIMPLEMENTED: grpc.StatusCode.UNIMPLEMENTED,
    Kind.DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
    Kind.DATA_LOSS: grpc.StatusCode.DATA_LOSS,
    Kind.INTERNAL: grpc.StatusCode.INTERNAL,
}


@dataclass(frozen=True)
class WireStatus:
    """What grpcio is told at the end of a call."""

    code: grpc.StatusCode
    message: str
    trailers: tuple[tuple[str, bytes], ...]


def wire_status(error: SysprocError) -> WireStatus:
    """The status of a domain error; long texts are cut so that every client accepts it."""
    code, message = CODES[error.kind], cut(str(error), MESSAGE_BYTES)
    details = fitting_details(error)
    status = Status(code=code.value[0], message=message, details=details)
    return WireStatus(code, message, ((DETAILS_KEY, status.SerializeToString()),))


def fitting_details(error: SysprocError) -> list[Any]:
    """ErrorInfo and, of a bad request, as many violations as fit."""
    details = [packed(error_info(error))]
    room = DETAILS_BYTES - details[0].ByteSize()
    bad = BadRequest()
    for violation in error.violations[:MOST_VIOLATIONS]:
        entry = BadRequest.FieldViolation(
            field=violation.field[:TEXT_CHARACTERS], description=violation.description[:TEXT_CHARACTERS]
        )
        room -= entry.ByteSize() + 8
        if room < 0:
            break
        bad.field_violations.append(entry)
    return [*details, packed(bad)] if bad.field_violations else details


def error_info(error: SysprocError) -> ErrorInfo:
    """Reason and domain, the NightOS code, what to do, and the facts that fit."""
    info = ErrorInfo(reason=error.reason, domain=DOMAIN)
    info.metadata["nightos_code"] = f"0x{error.kind.value:04x}"
    info.metadata["resolution"] = error.resolution[:TEXT_CHARACTERS]
    for key, value in error.metadata.items():
        if info.ByteSize() + len(key) + len(value.encode()) < DETAILS_BYTES // 2:
            info.metadata[key] = value
    return info


def packed(message: ErrorInfo | BadRequest) -> Any:
    """A detail as Status carries it."""
    detail = Any()
    detail.Pack(message)
    return detail


def cut(text: str, most: int) -> str:
    """The text, shortened to so many bytes of HTTP/2 (each byte beyond plain ASCII counts three times)."""
    size = 0
    for position, character in enumerate(text):
        size += 1 if " " <= character <= "~" and character != "%" else 3 * len(character.encode(errors="replace"))
        if size > most:
            return text[:position] + "..."
    return text
