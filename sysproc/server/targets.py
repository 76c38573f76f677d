"""From the references in a request to the containers that they name: once a call, before anything else looks at it.

    absent, or `.`     the caller's own container; the host's own is the host itself
    id                 that container; 0 is the host
    16 hex digits      an id
    a/b/c              names, from the caller's own container down; from the host, from the top

                       not there             not below the caller, or not to be reached in this request
    host, names        NOT_FOUND             (the host reaches everything)
    inside, names      NOT_FOUND             PERMISSION_DENIED
    inside, id         PERMISSION_DENIED     PERMISSION_DENIED: one text, so that ids cannot be tried out

Where a reference may mean the host, and how far one may reach, is declared (`sysproc.server.access`). The tree
itself is in `sysproc.storage.hierarchy`; the rules for names are in `sysproc.server.validate`.
"""

from dataclasses import dataclass

from google.protobuf.message import Message
from sqlalchemy import Connection

from nightos.sysproc.v1.access_pb2 import REACH_BELOW
from nightos.sysproc.v1.ref_pb2 import ContainerRef
from sysproc.errors import FieldViolation, InvalidArgument, NotFound, PermissionDenied
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
HOST = 0
MOST_NAMES = 256
MOST_REMEMBERED = 1024

# An id, or names from the caller's own container down; None is what the caller is in.
Wanted = int | tuple[str, ...] | None
# What is asked, and by which container; None on the host.
Question = tuple[tuple[tuple[Reference, Wanted], ...], int | None]


@dataclass(frozen=True)
class Found:
    """What a request names. answered: its answer is kept, and what it names now does not matter any more."""

    targets: Targets
    answered: bool


class Resolver:
    """Resolves references, and refuses those that reach too far; reads the database once a call, or not at all if
    the same was asked since its last change."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._found: dict[Question, Found] = {}
        self._found_at = database.revision

    async def resolve(self, method: Method, request: Message, caller: Caller) -> Found:
        """Every container that the request names. Raises NotFound, InvalidArgument, PermissionDenied.

        The answer to a repeated request counts first: what it named may be gone, or its name another's. It is kept
        by caller, so nobody is given another's.
        """
        wanted = {one: parse(one, one.in_request(request)) for one in method.references if one.is_in(request)}
        if not wanted:
            raise bad(method.references[0], "names no container")
        key, own = request_key(caller, method, request), caller.container_id
        if key is not None:
            return await self._database.read(lambda connection: look_up(connection, wanted, key, own))
        question = (tuple(wanted.items()), own)
        found = self._remembered(question)
        if found is None:
            revision = self._database.revision
            found = await self._database.read(lambda connection: look_up(connection, wanted, None, own))
            self._remember(question, found, revision)
        return found

    def _remembered(self, question: "Question") -> Found | None:
        if self._found_at != self._database.revision or len(self._found) >= MOST_REMEMBERED:
            self._found.clear()
            self._found_at = self._database.revision
        return self._found.get(question)

    def _remember(self, question: "Question", found: Found, revision: int) -> None:
        """Only what was read since the last change, all of it."""
        if revision == self._found_at == self._database.revision:
            self._found[question] = found


def asked(method: Method, request: Message) -> str:
    """What a request names, as its caller wrote it, for the log; cut, since anybody may write anything."""
    refs = [one.in_request(request) for one in method.references if one.is_in(request)]
    return ",".join(OWN if ref is None else ref.path[:200] if ref.HasField("path") else to_hex(ref.id) for ref in refs)


def look_up(connection: Connection, wanted: dict[Reference, Wanted], key: RequestKey | None, own: int | None) -> Found:
    """The kept answer or the containers, in one snapshot; own: the container of the caller, None on the host."""
    if key is not None and requests.recall(connection, key) is not None:
        return Found(dict.fromkeys(one.name for one in wanted), answered=True)
    find = find_for_host if own is None else lambda c, one, to: find_from_inside(c, one, to, own)
    return Found({one.name: find(connection, one, to) for one, to in wanted.items()}, answered=False)


def parse(reference: Reference, ref: ContainerRef | None) -> Wanted:
    """What a reference says; InvalidArgument if it says nothing that could be a container."""
    if ref is None or ref.WhichOneof("ref") is None:
        return None
    return parse_path(reference, ref.path) if ref.HasField("path") else ref.id


def parse_path(reference: Reference, path: str) -> Wanted:
    """`.`, 16 hex digits, or names (or ids, for those without) from the caller's own container down."""
    if path == OWN:
        return None
    if is_hex_id(path):
        return from_hex(path)
    names = tuple(path.split("/", MOST_NAMES))
    if not all(is_name(name) or is_hex_id(name) for name in names):
        raise bad(reference, "is neither an id of 16 hex digits nor names separated by `/`")
    return names


def find_for_host(connection: Connection, reference: Reference, wanted: Wanted) -> ContainerRow | None:
    """The container; None is the host. Raises NotFound, InvalidArgument."""
    match wanted:
        case None | 0:
            if not reference.may_be_host:
                raise bad(reference, "names no container; the host is none")
            return None
        case int():
            row, name = hierarchy.get_container(connection, wanted), to_hex(wanted)
        case names:
            row, name = hierarchy.resolve_path(connection, None, names), "/".join(names)
    if row is None:
        raise not_found(name)
    return row


def find_from_inside(connection: Connection, reference: Reference, wanted: Wanted, own: int) -> ContainerRow:
    """The container, if it is the caller's own or below, as far as the reference reaches. Raises PermissionDenied."""
    if isinstance(wanted, tuple):
        row = hierarchy.resolve_path(connection, own, wanted)
        if row is None:
            raise not_found("/".join(wanted))
        return row
    row = hierarchy.get_container(connection, own if wanted is None else wanted)
    if row is None or not within_reach(connection, reference, row, own):
        raise out_of_reach()
    return row


def within_reach(connection: Connection, reference: Reference, row: ContainerRow, own: int) -> bool:
    """Whether a caller in the container `own` may name this one here."""
    if row.id == own:
        return reference.reach != REACH_BELOW
    return own in hierarchy.path_of(connection, row.id)


def out_of_reach() -> PermissionDenied:
    """The one error for what is not the caller's to touch, whether it exists or not."""
    return PermissionDenied(
        "This container is not yours to touch, or it does not exist.",
        resolution="Inside a container one reaches what is below it, and reads and runs commands in itself: `.`.",
        reason="OUT_OF_REACH",
    )


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
