"""Requests as they may be written down: fields with `debug_redact` in the proto are empty.

Whatever keeps, hashes or logs a message passes it through here first: a digest of a passphrase in the database would
let anybody who has that try passphrases without argon2. How secrets are taken out of requests is in
`sysproc.server.convert.secrets`.
"""

from functools import cache
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

M = TypeVar("M", bound=Message)


def without_secrets(message: M) -> M:
    """A copy without what is secret; the message itself where it can have nothing of the kind."""
    if not _may_hold(message.DESCRIPTOR):
        return message
    copy = type(message)()
    copy.CopyFrom(message)
    _clear(copy)
    return copy


def secret_fields(descriptor: Descriptor) -> frozenset[str]:
    """The names of the fields that are marked."""
    return frozenset(one.name for one in descriptor.fields if one.GetOptions().debug_redact)


@cache
def _may_hold(descriptor: Descriptor, above: tuple[Descriptor, ...] = ()) -> bool:
    """Whether a message of this type, or one inside of it, can have a secret."""
    if secret_fields(descriptor):
        return True
    below = {one.message_type for one in descriptor.fields if one.message_type is not None} - {descriptor, *above}
    return any(_may_hold(one, (*above, descriptor)) for one in below)


def _clear(message: Message) -> None:
    for field, value in message.ListFields():
        if field.GetOptions().debug_redact:
            message.ClearField(field.name)
        elif field.message_type is not None and _may_hold(field.message_type):
            for one in _messages(value):
                _clear(one)


def _messages(value: Any) -> list[Message]:
    """One message, or those of a repeated field or of the values of a map."""
    if isinstance(value, Message):
        return [value]
    found = value.values() if hasattr(value, "values") else value
    return [one for one in found if isinstance(one, Message)]
