"""Volumes, as recorded: queries and changes, each a function of a connection.

    (asked for) ─▶ creating ─▶ ready ─▶ deleting ─▶ (no row)        found after a crash: creating is undone,
                                │ ▲                                 deleting is finished,
                                └─┘ grows: grown_from is set        what grew has the size of its file

Only `ready` ones are shown. A volume belongs to a container, or to the host (owner None); its name is its owner's to
give. When an owner is destroyed its volumes go with it or, if so created, to whoever is above what is destroyed: in the
transaction that records the destroy. The files are the business of `sysproc.volume_files`.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, delete, select, update

from sysproc.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from sysproc.ids import from_hex, to_hex
from sysproc.storage import hierarchy, quotas
from sysproc.storage.events import write_event
from sysproc.storage.hierarchy import ContainerRow, token_revision
from sysproc.storage.luks.edit import DATA_OFFSET
from sysproc.storage.quotas import Asker
from sysproc.storage.schema import EVENTS, VOLUMES

_V = VOLUMES.c
CREATING, READY, DELETING = "creating", "ready", "deleting"
DELETE, REPARENT = "delete", "reparent"
# Where what is in it comes from: our mkfs made it and nobody had it as raw blocks; the host vouched for it; elsewhere.
MADE, TRUSTED, FOREIGN = "made", "trusted", "foreign"
# What of it is encrypted: nothing, what is in each partition, or all of its file, the partition table inside.
BROKEN = "volume.broken"
NONE, FILESYSTEMS, WHOLE = "none", "filesystems", "whole"
# The type of what is encrypted and was imported: which filesystem is in it is known when it is opened first.
LUKS = "luks"
# The kernel resizes a btrfs to no less (BTRFS_IOC_RESIZE).
LEAST_GROWN_BTRFS = 256 << 20
# An owner that is one of these gets no volume: it may be gone, with all its traces, at any moment.
UNSETTLED_OWNERS = ("creating", *hierarchy.DYING)
NAME_CHARACTERS = 63


@dataclass(frozen=True)
class Filesystem:
    """One filesystem of a volume; a UUID of 36 characters. compression: `ALGORITHM[:LEVEL]`; empty: none.

    grown_bytes: of the last one, while an encrypted volume grows in a copy: its size there. 0: nothing is known yet.
    cut_off: of the last one, while it grows: it did not fill the size that it grows from.
    plain: of a volume whose partitions are encrypted, each by itself, this one is not; so only what others have made.
    """

    label: str
    type: str
    size_bytes: int
    uuid: str
    compression: str = ""
    grown_bytes: int = 0
    plain: bool = False
    cut_off: bool = False


@dataclass(frozen=True)
class SnapshotOf:
    """What a volume is a snapshot of: its name and owner then (16 hex digits, empty for the host), and when."""

    name: str
    owner_id: str
    at: float


@dataclass(frozen=True)
class NewVolume:
    """What is recorded when a volume is asked for; owner None is the host."""

    id: int
    owner_id: int | None
    name: str
    size_bytes: int
    filesystems: tuple[Filesystem, ...]
    on_destroy: str
    overcommit: bool
    origin: str = MADE
    encryption: str = NONE
    snapshot: SnapshotOf | None = None


@dataclass(frozen=True)
class VolumeRow:
    """A volume as recorded. size_bytes: of its file; grown_from: its size before, while it grows.

    grown_from is size_bytes where growth to that size was cut off in use, and then a further one has failed.
    """

    id: int
    owner_id: int | None
    name: str
    size_bytes: int
    filesystems: tuple[Filesystem, ...]
    on_destroy: str
    overcommit: bool
    origin: str
    state: str
    grown_from: int | None
    created_at: float
    created_revision: int
    revision: int
    encryption: str = NONE
    snapshot: SnapshotOf | None = None


def encrypts(row: VolumeRow | NewVolume, at: int) -> bool:
    """Whether this filesystem of a volume is encrypted."""
    return row.encryption == WHOLE or (row.encryption == FILESYSTEMS and not row.filesystems[at].plain)


@dataclass(frozen=True)
class Page:
    """Some volumes, and the token of the page after; empty on the last one."""

    volumes: tuple[VolumeRow, ...]
    next_token: str


def _row(found: Row[Any]) -> VolumeRow:
    values = dict(found._mapping)
    values["id"] = from_hex(values["id"])
    values["owner_id"] = None if values["owner_id"] is None else from_hex(values["owner_id"])
    values["filesystems"] = tuple(Filesystem(**one) for one in values["filesystems"])
    values["snapshot"] = None if values["snapshot"] is None else SnapshotOf(**values["snapshot"])
    return VolumeRow(**{field.name: values[field.name] for field in fields(VolumeRow)})


def _rows(connection: Connection, query: Select[Any]) -> list[VolumeRow]:
    return [_row(found) for found in connection.execute(query)]


def _owner(owner_id: int | None) -> str | None:
    return None if owner_id is None else to_hex(owner_id)


def _owned_by(owner_id: int | None) -> Any:
    return _V.owner_id.is_(None) if owner_id is None else _V.owner_id == to_hex(owner_id)


# Written once: to build a query takes longer than to run it.
_TAKEN = (
    select(_V.id)
    .where(_V.owner_id.is_not_distinct_from(bindparam("owner")), _V.name == bindparam("called"), _V.state != DELETING)
    .limit(1)
)
_DELETING = select(_V.id).where(_V.state == DELETING).limit(1)
_THEIRS = (
    select(VOLUMES)
    .where(_V.owner_id.in_(bindparam("owners", expanding=True)), _V.state != DELETING)
    .order_by(_V.created_revision)
)


# -- queries


def get_volume(connection: Connection, owner_id: int | None, name: str) -> VolumeRow:
    """The volume of this owner and name. Raises NotFound."""
    rows = _rows(connection, select(VOLUMES).where(_owned_by(owner_id), _V.name == name, _V.state == READY))
    if not rows:
        raise no_volume(owner_id, name)
    return rows[0]


def by_id(connection: Connection, volume_id: int) -> VolumeRow | None:
    """The volume in whatever state, or None."""
    found = connection.execute(select(VOLUMES).where(_V.id == to_hex(volume_id))).first()
    return None if found is None else _row(found)


def list_page(connection: Connection, below: int | None, *, limit: int, after: str) -> Page:
    """Volumes of a container and of all below it (None: all there are), oldest first.

    Raises InvalidArgument for a token that this service did not give.
    """
    query = select(VOLUMES).where(_V.state == READY, _V.created_revision > token_revision(after))
    if below is not None:
        query = query.where(
            _V.owner_id.in_(hierarchy.BELOW.params(which=to_hex(below))) | (_V.owner_id == to_hex(below))
        )
    rows = _rows(connection, query.order_by(_V.created_revision).limit(limit + 1))
    more = len(rows) > limit
    return Page(tuple(rows[:limit]), f"r{rows[limit - 1].created_revision}" if more else "")


def all_volumes(connection: Connection) -> list[VolumeRow]:
    """Every volume, in whatever state."""
    return _rows(connection, select(VOLUMES).order_by(_V.created_revision))


def any_deleting(connection: Connection) -> bool:
    """Whether there is one that is being deleted."""
    return connection.execute(_DELETING).first() is not None


def doomed(connection: Connection) -> list[VolumeRow]:
    """Those that are being deleted and that no container has any more."""
    return _rows(connection, select(VOLUMES).where(_V.state == DELETING, _V.owner_id.is_(None)))


# -- changes


def check_volume(connection: Connection, new: NewVolume, asker: Asker) -> None:
    """Raise what insert_volume would raise."""
    if new.owner_id is not None:
        owner = hierarchy.get_container(connection, new.owner_id)
        if owner is None:
            raise hierarchy.no_container(new.owner_id)
        if owner.state in UNSETTLED_OWNERS:
            raise owner_unsettled(owner)
    if connection.execute(_TAKEN, {"owner": _owner(new.owner_id), "called": new.name}).first() is not None:
        raise name_taken(new.name)
    if new.owner_id is not None and not new.overcommit:
        quotas.check_room(connection, new.owner_id, new.size_bytes, asker)


def _names(connection: Connection, owner_id: int | None) -> set[str]:
    query = select(_V.name).where(_owned_by(owner_id), _V.state != DELETING)
    return set(connection.execute(query).scalars())


def insert_volume(connection: Connection, new: NewVolume, asker: Asker) -> VolumeRow:
    """Record the intention: state `creating`.

    Raises NotFound, FailedPrecondition (the owner), AlreadyExists (the name), LimitExceeded.
    """
    check_volume(connection, new, asker)
    return _insert(connection, new, CREATING, "volume.creating")


def insert_ready(connection: Connection, new: NewVolume, asker: Asker) -> VolumeRow:
    """The same for one whose file is there already: state `ready`."""
    check_volume(connection, new, asker)
    return _insert(connection, new, READY, "volume.created")


def _insert(connection: Connection, new: NewVolume, state: str, kind: str) -> VolumeRow:
    revision = write_event(connection, kind, to_hex(new.id), {"name": new.name})
    given: dict[str, Any] = {field.name: getattr(new, field.name) for field in fields(NewVolume)}
    made: dict[str, Any] = {
        "state": state,
        "created_at": time.time(),
        "created_revision": revision,
        "revision": revision,
    }
    written = {
        "id": to_hex(new.id),
        "owner_id": _owner(new.owner_id),
        "filesystems": [asdict(one) for one in new.filesystems],
        "snapshot": None if new.snapshot is None else asdict(new.snapshot),
    }
    connection.execute(VOLUMES.insert(), {**given, **made, **written})
    return VolumeRow(**given, **made, grown_from=None)


def _must(connection: Connection, volume_id: int) -> VolumeRow:
    row = by_id(connection, volume_id)
    if row is None:
        raise gone(volume_id)
    return row


def _change(connection: Connection, volume_id: int, kind: str, values: Mapping[str, Any]) -> VolumeRow:
    told = {name: values[name] for name in ("name", "owner_id", "size_bytes") if name in values}
    revision = write_event(connection, kind, to_hex(volume_id), told)
    connection.execute(update(VOLUMES).where(_V.id == to_hex(volume_id)).values({**values, "revision": revision}))
    return _must(connection, volume_id)


def note_broken(connection: Connection, row: VolumeRow, *, again: bool) -> None:
    """What decrypts it was killed: an event; unless again, only if that is not the last one told of it already."""
    of_it = select(EVENTS.c.kind).where(EVENTS.c.subject == to_hex(row.id))
    last = connection.execute(of_it.order_by(EVENTS.c.revision.desc()).limit(1)).scalar()
    if again or last != BROKEN:
        write_event(connection, BROKEN, to_hex(row.id), {"name": row.name})


def note_opened(connection: Connection, row: VolumeRow) -> None:
    """It was locked, and is open: an event."""
    write_event(connection, "volume.unlocked", to_hex(row.id), {"name": row.name})


def finish_create(connection: Connection, volume_id: int, taken_at: float | None = None) -> VolumeRow:
    """The file is there: creating -> ready. Raises FailedPrecondition if its owner was destroyed meanwhile.

    taken_at: of a snapshot, the moment that it shows.
    """
    row = _must(connection, volume_id)
    if row.state != CREATING:
        raise gone(volume_id)
    values: dict[str, Any] = {"state": READY}
    if row.snapshot is not None and taken_at is not None:
        values["snapshot"] = asdict(replace(row.snapshot, at=taken_at))
    return _change(connection, volume_id, "volume.created", values)


def begin_grow(connection: Connection, volume_id: int, size_bytes: int, asker: Asker) -> VolumeRow:
    """Record that it shall grow, and take the room for it. Raises FailedPrecondition, LimitExceeded."""
    row = _must(connection, volume_id)
    if row.state != READY:
        raise gone(volume_id)
    if row.owner_id is not None and not row.overcommit:
        quotas.check_room(connection, row.owner_id, size_bytes - row.size_bytes, asker)
    last = _with_last(row, grown_bytes=0, cut_off=row.grown_from is not None)
    values = {"size_bytes": size_bytes, "grown_from": row.size_bytes, "filesystems": last}
    return _change(connection, volume_id, "volume.growing", values)


def note_grown(connection: Connection, volume_id: int, last_bytes: int) -> VolumeRow:
    """The last filesystem has this size in the copy that is about to take the file's place."""
    row = _must(connection, volume_id)
    return _change(connection, volume_id, "volume.growing", {"filesystems": _with_last(row, grown_bytes=last_bytes)})


def _with_last(row: VolumeRow, **values: int | bool) -> list[dict[str, Any]]:
    """The filesystems as they are written down, the last one with other values."""
    *others, last = row.filesystems
    return [asdict(one) for one in others] + [asdict(last) | values]


def finish_grow(connection: Connection, volume_id: int, last_bytes: int) -> VolumeRow:
    """The file has its new size, and its last filesystem this one."""
    now = _with_last(_must(connection, volume_id), size_bytes=last_bytes, grown_bytes=0, cut_off=False)
    return _change(connection, volume_id, "volume.grown", {"filesystems": now, "grown_from": None})


def shrunk(connection: Connection, volume_id: int, size_bytes: int, last_bytes: int) -> VolumeRow:
    """The file has become so small, and its last filesystem this one."""
    now = _with_last(_must(connection, volume_id), size_bytes=last_bytes)
    return _change(connection, volume_id, "volume.shrunk", {"size_bytes": size_bytes, "filesystems": now})


def undo_grow(connection: Connection, volume_id: int) -> None:
    """It did not grow: the file is as it was, also if its last filesystem did not fill that."""
    row = _must(connection, volume_id)
    if row.grown_from is not None:
        unfinished = row.grown_from if row.filesystems[-1].cut_off else None
        last = _with_last(row, grown_bytes=0, cut_off=False)
        values = {"size_bytes": row.grown_from, "grown_from": unfinished, "filesystems": last}
        _change(connection, volume_id, "volume.not_grown", values)


def set_filesystems(connection: Connection, volume_id: int, filesystems: Sequence[Filesystem]) -> VolumeRow:
    """Record what was found in it when it was opened first."""
    return _change(connection, volume_id, "volume.known", {"filesystems": [asdict(one) for one in filesystems]})


def set_origin(connection: Connection, volume_id: int, origin: str) -> VolumeRow:
    """Record where what is in it comes from, from now on. Raises FailedPrecondition."""
    row = _must(connection, volume_id)
    if row.state != READY:
        raise gone(volume_id)
    return row if row.origin == origin else _change(connection, volume_id, f"volume.{origin}", {"origin": origin})


def begin_delete(connection: Connection, volume_id: int) -> VolumeRow:
    """From now on it is not there any more; its file still is."""
    row = _must(connection, volume_id)
    return row if row.state == DELETING else _change(connection, volume_id, "volume.deleting", {"state": DELETING})


def delete_volume(connection: Connection, volume_id: int, *, only_in: Collection[str]) -> None:
    """Remove a row, if it is in one of these states: the file is gone."""
    removed = connection.execute(delete(VOLUMES).where(_V.id == to_hex(volume_id), _V.state.in_(only_in)))
    if removed.rowcount:
        write_event(connection, "volume.deleted", to_hex(volume_id), {})


# -- owners that go


def give_up(connection: Connection, owners: Sequence[int], heir: int | None) -> None:
    """These containers are being destroyed: their volumes too, or they are the heir's from now on (None: the host)."""
    found = connection.execute(_THEIRS, {"owners": [to_hex(one) for one in owners]})
    for row in [_row(one) for one in found]:
        if row.on_destroy == DELETE:
            begin_delete(connection, row.id)
        else:
            _inherit(connection, row, heir)


def _inherit(connection: Connection, row: VolumeRow, heir: int | None) -> None:
    name = free_name(row, _names(connection, heir))
    owner = None if heir is None else to_hex(heir)
    _change(connection, row.id, "volume.reparented", {"owner_id": owner, "name": name})


def free_name(row: VolumeRow, taken: Collection[str]) -> str:
    """Its own name; where that is taken already, with `-` and the volume's id after it, cut to fit before that."""
    name, number = row.name, 1
    while name in taken:
        ending = f"-{to_hex(row.id)}" + (f".{number}" if number > 1 else "")
        name, number = row.name[: NAME_CHARACTERS - len(ending)] + ending, number + 1
    return name


# -- errors


def no_volume(owner_id: int | None, name: str) -> NotFound:
    """There is no such volume."""
    whose = "the host" if owner_id is None else f"container {to_hex(owner_id)}"
    return NotFound(
        f"There is no volume named {name} of {whose}.",
        resolution="`sysproc volume list` shows what there is.",
        reason="VOLUME_NOT_FOUND",
        metadata={"volume": name},
    )


def name_taken(name: str) -> AlreadyExists:
    """The owner has one of this name."""
    return AlreadyExists(
        f"There is a volume named {name} of this owner already.",
        resolution="Choose another name, or delete that one first.",
        reason="NAME_TAKEN",
        metadata={"name": name},
    )


def owner_unsettled(owner: ContainerRow) -> FailedPrecondition:
    """It cannot be given a volume."""
    return FailedPrecondition(
        f"The owner {to_hex(owner.id)} is {owner.state}: it cannot be given a volume.",
        resolution="Create the volume for another container, or for the host.",
        reason="OWNER_UNSETTLED",
        metadata={"owner": to_hex(owner.id), "state": owner.state},
    )


def gone(volume_id: int) -> FailedPrecondition:
    """Somebody else was quicker."""
    return FailedPrecondition(
        f"The volume {to_hex(volume_id)} is being deleted: by request, or because its owner is destroyed.",
        resolution="`sysproc volume list` shows what there is.",
        reason="VOLUME_GONE",
        metadata={"volume": to_hex(volume_id)},
    )


def shrinks(row: VolumeRow, size_bytes: int) -> InvalidArgument:
    """It is larger than that already."""
    return InvalidArgument(
        f"The volume {row.name} has {row.size_bytes} bytes: it cannot become one of {size_bytes}.",
        resolution="Ask for a larger size; `sysproc volume shrink` makes it smaller.",
        reason="VOLUME_SHRINKS",
        metadata={"size_bytes": str(row.size_bytes)},
    )


def check_grown(row: VolumeRow, size_bytes: int) -> None:
    """Raise InvalidArgument for a size to which the kernel grows no such filesystem."""
    last, header = row.filesystems[-1], DATA_OFFSET if row.encryption != WHOLE and encrypts(row, -1) else 0
    missing = LEAST_GROWN_BTRFS - (last.size_bytes - header + size_bytes - row.size_bytes)
    if last.type == "btrfs" and missing > 0:
        raise InvalidArgument(
            f"The btrfs of the volume {row.name} can be grown to {LEAST_GROWN_BTRFS} bytes or more only.",
            resolution=f"Ask for a size of {size_bytes + missing} bytes at least.",
            reason="VOLUME_GROWS_TOO_LITTLE",
            metadata={"least_bytes": str(size_bytes + missing)},
        )


def grows(row: VolumeRow, size_bytes: int) -> InvalidArgument:
    """It is smaller than that already."""
    return InvalidArgument(
        f"The volume {row.name} has {row.size_bytes} bytes: it cannot shrink to {size_bytes}.",
        resolution="Ask for a smaller size; `sysproc volume grow` makes it larger.",
        reason="VOLUME_GROWS",
        metadata={"size_bytes": str(row.size_bytes)},
    )


def never_written(row: VolumeRow) -> FailedPrecondition:
    """Its last filesystem is of a type that is made once."""
    return FailedPrecondition(
        f"The {row.filesystems[-1].type} of the volume {row.name} is read-only and cannot grow.",
        resolution="Create another volume of what shall be in it.",
        reason="VOLUME_READ_ONLY",
        metadata={"volume": row.name},
    )
