"""The tree of containers, as recorded: queries and changes, each a function of a connection.

Frozen dataclasses go in and come out. Every change writes its event in the same transaction, and the event's revision
becomes the container's etag. Which changes make sense is decided above, in `sysproc.containers`. Statements that each
call needs are built once, with bound parameters: building one takes ten times as long as SQLite takes to run it.
"""

import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection, Executable, Row, Select, bindparam, delete, select, update
from sqlalchemy.exc import IntegrityError

from sysproc.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from sysproc.ids import from_hex, is_hex_id, to_hex
from sysproc.storage.events import write_event
from sysproc.storage.schema import CONTAINERS

Environment = tuple[tuple[bytes, bytes], ...]
_C = CONTAINERS.c
DYING = ("destroying", "failed")


@dataclass(frozen=True)
class NewContainer:
    """What is recorded when a container is asked for. Sizes in bytes."""

    id: int
    parent_id: int | None
    name: str
    hostname: str
    image_name: str
    image_digest: str
    memory_bytes: int | None
    cpu_millis: int | None
    pids: int | None
    root_bytes: int
    environment: Environment
    labels: Mapping[str, str]
    profile: str
    descendants: int | None = None
    depth: int | None = None
    storage_bytes: int | None = None
    overcommit: bool = False
    ttl_s: float | None = None
    idle_timeout_s: float | None = None
    api_users: str = ""
    delegate: bool = False


@dataclass(frozen=True)
class ContainerRow:
    """A container as recorded. Times in seconds since 1970, start times of processes in ticks since boot.

    api_users: who besides uid 0 has authority inside: uids with commas between, or `all`.
    """

    id: int
    parent_id: int | None
    name: str
    hostname: str
    image_name: str
    image_digest: str
    memory_bytes: int | None
    cpu_millis: int | None
    pids: int | None
    root_bytes: int
    environment: Environment
    labels: Mapping[str, str]
    profile: str
    state: str
    reason: str
    exit_code: int | None
    exit_signal: int | None
    oom_killed: bool
    uid_base: int | None
    init_pid: int | None
    init_start: int | None
    keeper_pid: int | None
    keeper_start: int | None
    userns_ino: int | None
    mntns_ino: int | None
    created_at: float
    started_at: float | None
    stopped_at: float | None
    created_revision: int
    revision: int
    # What came after the first release has a default: answers to requests are kept over upgrades.
    descendants: int | None = None
    depth: int | None = None
    storage_bytes: int | None = None
    overcommit: bool = False
    ttl_s: float | None = None
    idle_timeout_s: float | None = None
    api_users: str = ""
    delegate: bool = False
    expires_at: float | None = None

    @property
    def etag(self) -> str:
        """Another one after every change."""
        return str(self.revision)


@dataclass(frozen=True)
class Page:
    """Some containers, and the token of the page after; empty on the last one."""

    containers: tuple[ContainerRow, ...]
    next_token: str


# -- statements; `which` is an id as it is stored

_FIELDS = tuple(field.name for field in fields(ContainerRow))
_NEW_FIELDS = tuple(field.name for field in fields(NewContainer))
_THIS = _C.id == bindparam("which")
_GET = select(CONTAINERS).where(_THIS)
_GET_THESE = select(CONTAINERS).where(_C.id.in_(bindparam("these", expanding=True)))
_AT_TOP_NAMED = select(CONTAINERS).where(_C.parent_id.is_(None), _C.name == bindparam("name"))
_CHILD_NAMED = select(CONTAINERS).where(_C.parent_id == bindparam("parent"), _C.name == bindparam("name"))
_INSERT = CONTAINERS.insert().returning(*_C)
_CHANGE = update(CONTAINERS).where(_THIS).returning(*_C)


def _upward() -> Select[str]:
    """The ids from a container up to the top."""
    above = select(_C.id, _C.parent_id).where(_THIS).cte("above", recursive=True)
    return select(above.union_all(select(_C.id, _C.parent_id).where(_C.id == above.c.parent_id)).c.id)


def _downward() -> Select[str]:
    """The ids of all containers below one."""
    below = select(_C.id).where(_C.parent_id == bindparam("which")).cte("below", recursive=True)
    return select(below.union_all(select(_C.id).where(_C.parent_id == below.c.id)).c.id)


_PATH, BELOW = _upward(), _downward()
_SUBTREE = select(CONTAINERS).where(_C.id.in_(BELOW) | _THIS)


# -- rows and dataclasses


def _encode_environment(environment: Environment) -> bytes:
    return json.dumps([[part.decode("latin-1") for part in pair] for pair in environment]).encode()


def _decode_environment(stored: bytes) -> Environment:
    return tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in json.loads(stored))


def _row(found: Row[Any]) -> ContainerRow:
    values = dict(found._mapping)
    values["id"] = from_hex(values["id"])
    values["parent_id"] = from_hex(values["parent_id"]) if values["parent_id"] is not None else None
    values["environment"] = _decode_environment(values["environment"])
    return ContainerRow(**{name: values[name] for name in _FIELDS})


def _rows(connection: Connection, query: Executable, bound: Mapping[str, object] | None = None) -> list[ContainerRow]:
    return [_row(found) for found in connection.execute(query, bound)]


def _hex(container_id: int | None) -> str | None:
    return None if container_id is None else to_hex(container_id)


# -- queries


def get_container(connection: Connection, container_id: int) -> ContainerRow | None:
    """The container, or None."""
    found = connection.execute(_GET, {"which": to_hex(container_id)}).first()
    return None if found is None else _row(found)


def all_containers(connection: Connection) -> list[ContainerRow]:
    """Every container, oldest first: parents before their children."""
    return _rows(connection, select(CONTAINERS).order_by(_C.created_revision))


def child_named(connection: Connection, parent_id: int | None, name: str) -> ContainerRow | None:
    """The child of this name; None as parent is the top of the tree."""
    query = _AT_TOP_NAMED if parent_id is None else _CHILD_NAMED
    bound = {"name": name} if parent_id is None else {"name": name, "parent": to_hex(parent_id)}
    found = connection.execute(query, bound).first() if name else None
    return None if found is None else _row(found)


def resolve_path(connection: Connection, base: int | None, names: Sequence[str]) -> ContainerRow | None:
    """Follow names, or ids of 16 hex digits, from a container (None: the top) down; None if one is not there."""
    at, row = base, None
    for name in names:
        row = _step(connection, at, name)
        if row is None:
            return None
        at = row.id
    return row


def _step(connection: Connection, at: int | None, name: str) -> ContainerRow | None:
    if not is_hex_id(name):
        return child_named(connection, at, name)
    row = get_container(connection, from_hex(name))
    return row if row is not None and row.parent_id == at else None


def path_of(connection: Connection, container_id: int) -> tuple[int, ...]:
    """The ids from the top down to this container. Raises NotFound."""
    ids = [from_hex(one) for one in connection.execute(_PATH, {"which": to_hex(container_id)}).scalars()]
    if not ids:
        raise no_container(container_id)
    return tuple(reversed(ids))


def lineage(connection: Connection, container_id: int) -> list[ContainerRow]:
    """The containers from the top down to this one, itself last. Raises NotFound."""
    path = path_of(connection, container_id)
    rows = {row.id: row for row in _rows(connection, _GET_THESE, {"these": list(map(to_hex, path))})}
    return [rows[one] for one in path]


def names_of(connection: Connection, container_id: int, below: int | None = None) -> tuple[str, ...]:
    """The path for people, from one above it (None: the top) down: names, and ids where a container has none.

    Empty for that one itself. Raises NotFound.
    """
    path = path_of(connection, container_id)
    path = path if below is None else path[path.index(below) + 1 :]
    found = connection.execute(select(_C.id, _C.name).where(_C.id.in_([to_hex(one) for one in path])))
    named = {row.id: row.name for row in found}
    return tuple(named[to_hex(one)] or to_hex(one) for one in path)


def ids_below(connection: Connection, container_id: int) -> list[int]:
    """Every container below this one."""
    return [from_hex(one) for one in connection.execute(BELOW, {"which": to_hex(container_id)}).scalars()]


def subtree(connection: Connection, container_id: int) -> list[ContainerRow]:
    """The container and everything below it, deepest first, the container itself last; empty if it is not there."""
    rows = _rows(connection, _SUBTREE, {"which": to_hex(container_id)})
    depth = depths(rows, container_id)
    return sorted(rows, key=lambda row: (-depth[row.id], row.created_revision))


def depths(rows: Sequence[ContainerRow], top: int) -> dict[int, int]:
    """How many levels below the top each of these is."""
    depth: dict[int, int] = {top: 0}
    for row in sorted(rows, key=lambda row: row.created_revision):
        if row.id != top and row.parent_id is not None:
            depth[row.id] = depth[row.parent_id] + 1
    return depth


def list_page(
    connection: Connection,
    under: int | None,
    *,
    itself: bool = False,
    children_only: bool = False,
    labels: Mapping[str, str] | None = None,
    limit: int = 100,
    after: str = "",
) -> Page:
    """Containers below one (None: the top), with `itself` that one too, oldest first.

    A label with an empty value matches any value.

    Raises InvalidArgument for a token that this service did not give.
    """
    query = select(CONTAINERS).where(_C.created_revision > token_revision(after)).order_by(_C.created_revision)
    if under is not None:
        within = _C.parent_id == to_hex(under) if children_only else _C.id.in_(BELOW.params(which=to_hex(under)))
        query = query.where(within | (_C.id == to_hex(under)) if itself else within)
    elif children_only:
        query = query.where(_C.parent_id.is_(None))
    for name, value in (labels or {}).items():
        stored = _C.labels[name].as_string()
        query = query.where(stored.is_not(None) if not value else stored == value)
    rows = _rows(connection, query.limit(limit + 1))
    more = len(rows) > limit
    return Page(tuple(rows[:limit]), f"r{rows[limit - 1].created_revision}" if more else "")


def token_revision(token: str) -> int:
    """The revision after which a page begins. Raises InvalidArgument for a token that we did not make."""
    if not token:
        return 0
    if token[0] != "r" or not token[1:].isdecimal() or len(token) > 20:
        raise InvalidArgument(
            "The page_token is not one that this service gave.",
            resolution="Send the next_page_token of the page before, or none for the first page.",
            reason="BAD_PAGE_TOKEN",
        )
    return int(token[1:])


# -- changes


def check_container(connection: Connection, new: NewContainer) -> None:
    """Raise what insert_container would raise."""
    if new.parent_id is not None:
        parent = get_container(connection, new.parent_id)
        if parent is None:
            raise no_container(new.parent_id)
        if parent.state in DYING:
            raise parent_dying(parent)
    if new.name and child_named(connection, new.parent_id, new.name) is not None:
        raise name_taken(new.name)


def insert_container(connection: Connection, new: NewContainer) -> ContainerRow:
    """Record the intention: state `creating`. Raises NotFound (parent), AlreadyExists (name), FailedPrecondition."""
    check_container(connection, new)
    revision = write_event(connection, "container.creating", to_hex(new.id), {"name": new.name})
    values = {name: getattr(new, name) for name in _NEW_FIELDS} | {
        "id": to_hex(new.id),
        "parent_id": _hex(new.parent_id),
        "environment": _encode_environment(new.environment),
        "labels": dict(new.labels),
        "state": "creating",
        "reason": "",
        "oom_killed": False,
        "created_at": time.time(),
        "created_revision": revision,
        "revision": revision,
        "expires_at": None if new.ttl_s is None else time.time() + new.ttl_s,
    }
    try:
        return _row(connection.execute(_INSERT, values).one())
    except IntegrityError as failure:
        raise name_taken(new.name) from failure


def _must(connection: Connection, container_id: int) -> ContainerRow:
    row = get_container(connection, container_id)
    if row is None:
        raise no_container(container_id)
    return row


def transition(
    connection: Connection, container_id: int, *, to: str, reason: str, allowed_from: Collection[str], **columns: Any
) -> ContainerRow:
    """Move a container to another state. Raises NotFound, and FailedPrecondition from any other state than allowed."""
    row = _must(connection, container_id)
    if row.state not in allowed_from:
        raise wrong_state(row, to)
    stamps: dict[str, object] = {}
    if to == "running" and row.state != "frozen":
        stamps = {"started_at": time.time(), "stopped_at": None, "exit_code": None, "exit_signal": None}
        stamps["oom_killed"] = False
    if to == "stopped":
        stamps = {"stopped_at": time.time() if row.started_at is not None else None, "uid_base": None}
        stamps |= dict.fromkeys(("init_pid", "init_start", "keeper_pid", "keeper_start", "userns_ino", "mntns_ino"))
    return _change(connection, container_id, f"container.{to}", {**stamps, **columns, "state": to, "reason": reason})


def _change(connection: Connection, container_id: int, kind: str, values: Mapping[str, Any]) -> ContainerRow:
    told = {name: values[name] for name in ("reason", "exit_code", "exit_signal", "oom_killed") if name in values}
    revision = write_event(connection, kind, to_hex(container_id), told)
    bound = {**values, "which": to_hex(container_id), "revision": revision}
    changed = connection.execute(_CHANGE, bound).first()
    if changed is None:
        raise no_container(container_id)
    return _row(changed)


def update_container(connection: Connection, container_id: int, **columns: Any) -> ContainerRow:
    """Change columns that are no state: limits, labels."""
    if "labels" in columns:
        columns["labels"] = dict(columns["labels"])
    return _change(connection, container_id, "container.updated", columns)


def delete_container(connection: Connection, container_id: int, *, only_in: Collection[str]) -> bool:
    """Remove a row, if it is in one of these states; whether it was. Its children must be gone."""
    gone = connection.execute(delete(CONTAINERS).where(_C.id == to_hex(container_id), _C.state.in_(only_in)))
    if gone.rowcount:
        write_event(connection, "container.destroyed", to_hex(container_id), {})
    return bool(gone.rowcount)


# -- errors


def no_container(container_id: int) -> NotFound:
    """There is no such row."""
    return NotFound(
        f"There is no container {to_hex(container_id)}.",
        resolution="`sysproc list` shows what there is.",
        reason="CONTAINER_NOT_FOUND",
        metadata={"container": to_hex(container_id)},
    )


def name_taken(name: str) -> AlreadyExists:
    """A sibling has this name."""
    return AlreadyExists(
        f"There is a container named {name} at this place already.",
        resolution="Choose another name, or destroy that one first.",
        reason="NAME_TAKEN",
        metadata={"name": name},
    )


def parent_dying(parent: ContainerRow) -> FailedPrecondition:
    """Nothing may be created below it any more."""
    return FailedPrecondition(
        f"The parent {to_hex(parent.id)} is {parent.state}: nothing can be created below it.",
        resolution="Create it below another container.",
        reason="PARENT_DYING",
        metadata={"parent": to_hex(parent.id), "state": parent.state},
    )


def wrong_state(row: ContainerRow, to: str) -> FailedPrecondition:
    """Somebody else was quicker."""
    return FailedPrecondition(
        f"Container {to_hex(row.id)} is {row.state} by now: it cannot become {to}.",
        resolution="Look at its state again.",
        reason="WRONG_STATE",
        metadata={"state": row.state},
    )
