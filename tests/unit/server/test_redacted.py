"""Secrets of requests: marked in the proto, and in nothing that is written down."""

import uuid

import pytest
from google.protobuf.message import Message

from nightos.sysproc.v1 import volume_service_pb2 as pb
from nightos.sysproc.v1.volume_pb2 import Volume, VolumeRef
from sysproc.server.access import methods
from sysproc.server.call import request_key
from sysproc.server.convert.secrets import taken
from sysproc.server.peer import Caller
from sysproc.server.redacted import secret_fields, without_secrets

SERVICE = pb.DESCRIPTOR.services_by_name["VolumeService"]
MESSAGES = [
    pb.CreateVolumeRequest(volume=Volume(name="v"), request_id=str(uuid.UUID(int=0)), secret=b"one"),
    pb.MountVolumeRequest(volume=VolumeRef(name="v"), secret=b"one"),
    pb.GrowVolumeRequest(volume=VolumeRef(name="v"), secret=b"one"),
    pb.CheckVolumeRequest(volume=VolumeRef(name="v"), secret=b"one"),
    pb.ChangeVolumeKeysRequest(volume=VolumeRef(name="v"), secret=b"one", new_secret=b"two"),
]


def test_every_field_that_is_called_a_secret_is_marked() -> None:
    requests = [method.input_type for method in SERVICE.methods]
    called = {(one.name, field.name) for one in requests for field in one.fields if "secret" in field.name}
    marked = {(one.name, name) for one in requests for name in secret_fields(one)}
    assert called == marked and len(marked) >= 5


@pytest.mark.parametrize("message", MESSAGES, ids=lambda one: one.DESCRIPTOR.name)
def test_what_may_be_written_down_has_none_and_the_message_keeps_its_own(message: Message) -> None:
    redacted = without_secrets(message)
    shown = redacted.SerializeToString() + str(redacted).encode()
    assert b"one" not in shown and b"two" not in shown and b"v" in shown
    assert message.secret == b"one"  # type: ignore[attr-defined]  # each has one


def test_what_has_none_is_not_copied() -> None:
    message = pb.DeleteVolumeRequest(volume=VolumeRef(name="v"))
    assert without_secrets(message) is message


def test_what_is_recorded_of_a_request_says_nothing_of_its_secret() -> None:
    (method,) = (one for one in methods(SERVICE) if one.name.endswith("/CreateVolume"))
    keys = []
    for secret in (b"one", b"two"):
        request = pb.CreateVolumeRequest(volume=Volume(name="v"), request_id=str(uuid.UUID(int=0)), secret=secret)
        keys.append(request_key(Caller(None, 0, 1, authority=True), method, request))
    assert keys[0] == keys[1] and keys[0] is not None
    request.volume.name = "w"
    assert request_key(Caller(None, 0, 1, authority=True), method, request) != keys[0]


def test_where_it_came_from_it_is_overwritten() -> None:
    data = bytes(bytearray(b"a secret"))
    with taken(data) as secret:
        assert bytes(secret.view) == b"a secret" and secret.locked
    assert data == bytes(8) and bytes(secret.view) == bytes(8)


def test_what_the_interpreter_shares_is_not_overwritten() -> None:
    for shared in (b"", b"x"):
        taken(shared).close()
    assert bytes([120]) == b"x" and repr(taken(b"x")) == "SecretBuffer(***)"
