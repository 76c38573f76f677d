"""One call under way: who makes it, what it names, by which it is found in the log.

The interceptor makes a `Call` and fills in the targets; servicers read it and resolve nothing themselves.
How references become containers is in `sysproc.server.targets`.
"""

import hashlib
import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc
from google.protobuf.message import Message

from sysproc.ids import to_hex
from sysproc.server.access import Method
from sysproc.server.peer import Caller
from sysproc.server.redacted import without_secrets
from sysproc.storage.hierarchy import ContainerRow
from sysproc.storage.requests import RequestKey

_BOOT = os.urandom(3).hex()
_numbers = itertools.count(1)


# By the reference's name in the request; None is the host, where that may be named.
Targets = Mapping[str, ContainerRow | None]


@dataclass
class Call:
    """asked: what the request names, as it was written. answered: its answer of before is given; no targets then."""

    method: Method
    caller: Caller
    context: "grpc.aio.ServicerContext[Message, Message]"
    number: str = field(default_factory=lambda: f"{_BOOT}-{next(_numbers)}")
    targets: Targets = field(default_factory=dict)
    asked: str = ""
    answered: bool = False

    @property
    def viewer(self) -> int | None:
        """In which container the caller sees what it is answered; None is the host."""
        return self.caller.container_id

    @property
    def target(self) -> ContainerRow | None:
        """The only reference of the request, resolved; None is the host."""
        (row,) = self.targets.values()
        return row

    @property
    def container(self) -> ContainerRow:
        """The only reference of the request, where it cannot be the host."""
        (name,) = self.targets
        return self.container_named(name)

    def container_named(self, reference: str) -> ContainerRow:
        """One of several references of the request, where it cannot be the host."""
        row = self.targets.get(reference)
        if row is None:
            raise LookupError(f"{self.method.name} was let through without a container")
        return row

    @property
    def named(self) -> str:
        """What the request names, for the log."""
        if self.answered:
            return "answered before"
        return ",".join("host" if row is None else to_hex(row.id) for row in self.targets.values())

    def key(self, request: Message) -> RequestKey | None:
        """By what the answer to this request is kept; None if the client gave it no id."""
        return request_key(self.caller, self.method, request)


def request_key(caller: Caller, method: Method, request: Message) -> RequestKey | None:
    """Caller, method and id, with a digest of the request without its secrets; None for one without an id."""
    request_id: str = getattr(request, "request_id", "")
    if not request_id:
        return None
    digest = hashlib.sha256(without_secrets(request).SerializeToString(deterministic=True)).digest()
    return RequestKey(caller=str(caller), method=method.name, request_id=request_id.lower(), digest=digest)
