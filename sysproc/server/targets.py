"""From the references in a request to the containers that they name: once a call, before anything else looks at it.

    absent, or `.`     the caller's own container; the host's own is the host itself
    id                 that container; 0 is the host
    16 hex digits      an id
    a/b/c              names, from the caller's own container down; from the host, from the top

Where a reference may mean the host, and how far one may reach, is declared (`sysproc.server.access`). The tree
itself is in `sysproc.storage.hierarchy`; the rules for names are in `sysproc.server.validate`.
"""

from dataclasses import dataclass

from google.protobuf.message import Message
from sqlalchemy import Connection

from nightos.sysproc.v1.ref_pb2 import ContainerRef
from sysproc.errors import FieldViolation, InvalidArgument, NotFound
from sysproc.ids import from_hex, is_hex_id, to_hex
from sysproc.server.access import Method, Reference
from sysproc.server.call import Targets, request_key
from sysproc.server.peer import Caller
from sysproc.server.validate import is_name
from sysproc.storage import hierarchy, requests
from sysproc.storage.database import Database
from sysproc.storage.hierarchy import ContainerRow
from sysproc.storage.requests import RequestKey

OWN = "."
MOST_NAMES = 256

# An id, or names from the top; None is the host.
Wanted = int | tuple[str, ...] | None


@dataclass(frozen=True)
class Found:
    """What a request names. answered: its answer is kept, and what it names now does not matter any more."""

    targets: Targets
    answered: bool


class Resolver:
    """Resolves references of the host's callers; reads the database once a call."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def resolve(self, method: Method, request: Message, caller: Caller) -> Found:
        """Every container that the request names. Raises NotFound, InvalidArgument.

        The answer to a repeated request counts first: what it named may be gone, or its name another's.
        """
        wanted = {one: parse(one, one.in_request(request)) for one in method.references if one.is_in(request)}
        if not wanted:
            raise bad(method.references[0], "names no container")
        key = request_key(caller, method, request)
        return await self._database.read(lambda connection: look_up(connection, wanted, key))


def look_up(connection: Connection, wanted: dict[Reference, Wanted], key: RequestKey | None) -> Found:
    """The kept answer or the containers, in one snapshot."""
    if key is not None and requests.recall(connection, key) is not None:
        return Found(dict.fromkeys(one.name for one in wanted), answered=True)
    return Found({one.name: find(connection, to) for one, to in wanted.items()}, answered=False)


def parse(reference: Reference, ref: ContainerRef | None) -> Wanted:
    """What a reference says; InvalidArgument if it says nothing that could be a container."""
    wanted: Wanted = None
    if ref is not None and ref.HasField("path"):
        wanted = parse_path(reference, ref.path)
    elif ref is not None:
        wanted = ref.id or None
    if wanted is None and not reference.may_be_host:
        raise bad(reference, "names no container; the host is none")
    return wanted


def parse_path(reference: Reference, path: str) -> Wanted:
    """`.`, 16 hex digits, or names (or ids, for those without) from the top down."""
    if path == OWN:
        return None
    if is_hex_id(path):
        return from_hex(path) or None
    names = tuple(path.split("/", MOST_NAMES))
    if not all(is_name(name) or is_hex_id(name) for name in names):
        raise bad(reference, "is neither an id of 16 hex digits nor names separated by `/`")
    return names


def find(connection: Connection, wanted: Wanted) -> ContainerRow | None:
    """The container; None is the host. Raises NotFound."""
    match wanted:
        case None:
            return None
        case int():
            row, name = hierarchy.get_container(connection, wanted), to_hex(wanted)
        case names:
            row, name = hierarchy.resolve_path(connection, None, names), "/".join(names)
    if row is None:
        raise not_found(name)
    return row


def not_found(name: str) -> NotFound:
    """The error for a container that a host's caller named and that does not exist."""
    return NotFound(
        f"There is no container {name}.",
        resolution="`sysproc list` shows what there is.",
        reason="CONTAINER_NOT_FOUND",
        metadata={"container": name},
    )


def bad(reference: Reference, why: str) -> InvalidArgument:
    """The error for a reference that cannot be a container, whatever exists."""
    return InvalidArgument(
        f"`{reference.name}` {why}.",
        resolution="Name a container by its id or by its path of names.",
        reason="BAD_REFERENCE",
        violations=[FieldViolation(reference.name, why)],
    )
