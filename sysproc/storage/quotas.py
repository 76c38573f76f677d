"""What a container may have below it: limits only shrink on the way down, and what would exceed one is refused.

                      held by       refused at creation, and when it is raised         refused when it is lowered
    memory, cpu, pids the kernel    above the least of those above                     (the kernel says)
    descendants,      here          above what is left of any above                    below what is there
      depth                         a child too many, a level too deep
    storage           here          above the least of those above                     below what is used
                                    a root, a volume, or a process's output, that does not fit

All inside the transaction that it is checked for, so that two at once cannot both take the last of it. Figures of
containers above the caller's own are not told. The records themselves are changed by `sysproc.storage.hierarchy`;
what is free on the disk is no matter of the tree: see `sysproc.storage.state_dir`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, func, select

from sysproc.errors import FailedPrecondition, InvalidArgument, LimitExceeded
from sysproc.ids import to_hex
from sysproc.storage import hierarchy
from sysproc.storage.hierarchy import ContainerRow, NewContainer
from sysproc.storage.schema import CONTAINERS, VOLUMES

_C, _V = CONTAINERS.c, VOLUMES.c
# The declared sizes of the roots and of the volumes of a container and of all below it.
_WITHIN, _OWNED = (one.in_(hierarchy.BELOW) | (one == bindparam("which")) for one in (_C.id, _V.owner_id))
_ROOTS = select(func.sum(_C.root_bytes)).where(_WITHIN, ~_C.overcommit)
_VOLUMES = select(func.sum(_V.size_bytes)).where(_OWNED, ~_V.overcommit)
UNITS: Mapping[str, str] = {
    "memory_bytes": "bytes of memory",
    "cpu_millis": "thousandths of a processor",
    "pids": "processes and threads",
    "descendants": "containers below it",
    "depth": "levels below it",
    "storage_bytes": "bytes of storage",
}
# What a container further down can have of these is less: it is itself one of those that are counted.
_COUNTED = ("descendants", "depth")


@dataclass(frozen=True)
class Asker:
    """viewer: the container of the caller, None on the host. output_bytes: what is kept of the output of containers."""

    viewer: int | None
    output_bytes: Callable[[Collection[int]], int]


def check_new(connection: Connection, new: NewContainer, asker: Asker) -> None:
    """Raise LimitExceeded for a container that does not fit below its parent, InvalidArgument into itself."""
    if new.storage_bytes is not None and new.root_bytes > new.storage_bytes:
        raise InvalidArgument(
            f"A root of {new.root_bytes} bytes does not fit into a storage of {new.storage_bytes} bytes.",
            resolution="Ask for a smaller root (`--size`), or for more storage: it holds the root, too.",
            reason="BAD_COMBINATION",
        )
    if new.parent_id is None:
        return
    above = hierarchy.lineage(connection, new.parent_id)
    check_shrinks(above, {name: getattr(new, name) for name in UNITS}, asker)
    for distance, row in enumerate(reversed(above), start=1):
        hidden = is_hidden(above, row, asker)
        check_level(row, distance, hidden)
        check_count(connection, row, hidden)
        if not new.overcommit:
            check_storage(connection, row, new.root_bytes, hidden, asker)


def check_shrinks(above: Sequence[ContainerRow], wanted: Mapping[str, int | None], asker: Asker) -> None:
    """Raise LimitExceeded for a limit that is more than one above allows; `above`: from the top down to the parent."""
    for name, value in wanted.items():
        for distance, row in enumerate(reversed(above), start=1):
            most = most_below(row, name, distance)
            if value is not None and most is not None and value > most:
                raise too_much(row, name, value, most, hidden=is_hidden(above, row, asker))


def most_below(row: ContainerRow, name: str, distance: int) -> int | None:
    """What a container so many levels below may have at most; None: as much as it likes."""
    limit: int | None = getattr(row, name)
    return max(0, limit - distance) if limit is not None and name in _COUNTED else limit


def check_level(row: ContainerRow, distance: int, hidden: bool) -> None:
    """Raise LimitExceeded for a container too many levels below this one."""
    if row.depth is not None and distance > row.depth:
        raise exceeded(row, f"may have {row.depth} levels below it; this would be level {distance}", hidden=hidden)


def check_count(connection: Connection, row: ContainerRow, hidden: bool) -> None:
    """Raise LimitExceeded where there are as many below as there may be."""
    if row.descendants is None:
        return
    there = len(hierarchy.ids_below(connection, row.id))
    if there + 1 > row.descendants:
        raise exceeded(row, f"may have {row.descendants} containers below it, and has {there}", hidden=hidden)


def check_storage(connection: Connection, row: ContainerRow, more: int, hidden: bool, asker: Asker) -> None:
    """Raise LimitExceeded where so many bytes more do not fit."""
    if row.storage_bytes is None:
        return
    used = storage_used(connection, row.id, asker)
    if used + more > row.storage_bytes:
        what = f"may have {row.storage_bytes} bytes of storage, of which {used} are used; {more} more do not fit"
        raise exceeded(row, what, hidden=hidden)


def check_room(connection: Connection, container_id: int, more: int, asker: Asker) -> None:
    """Raise LimitExceeded where so many bytes more do not fit, into this container or one above."""
    lineage = hierarchy.lineage(connection, container_id)
    for row in lineage:
        check_storage(connection, row, more, is_hidden(lineage, row, asker), asker)


def check_change(connection: Connection, row: ContainerRow, changed: Mapping[str, int | None], asker: Asker) -> None:
    """Raise LimitExceeded for a limit above those above, FailedPrecondition for one below what is there."""
    above = hierarchy.lineage(connection, row.id)[:-1]
    check_shrinks(above, changed, asker)
    there = {
        "descendants": lambda: len(hierarchy.ids_below(connection, row.id)),
        "depth": lambda: levels_below(connection, row.id),
        "storage_bytes": lambda: storage_used(connection, row.id, asker),
    }
    for name in there.keys() & changed.keys():
        value = changed[name]
        if value is not None and (used := there[name]()) > value:
            raise in_use(row, name, value, used)


# -- what is there


def levels_below(connection: Connection, container_id: int) -> int:
    """How deep the tree is below this one."""
    rows = hierarchy.subtree(connection, container_id)
    return max(hierarchy.depths(rows, container_id).values(), default=0)


def storage_used(connection: Connection, container_id: int, asker: Asker) -> int:
    """Declared sizes of the roots and volumes of it and all below, and what is kept of their processes' output."""
    ids = [container_id, *hierarchy.ids_below(connection, container_id)]
    declared = (connection.execute(sizes, {"which": to_hex(container_id)}).scalar() for sizes in (_ROOTS, _VOLUMES))
    return sum(int(size or 0) for size in declared) + asker.output_bytes(ids)


# -- errors


def is_hidden(lineage: Sequence[ContainerRow], row: ContainerRow, asker: Asker) -> bool:
    """Whether a container of a lineage is above the caller's own."""
    if asker.viewer is None:
        return False
    ids = [one.id for one in lineage]
    return asker.viewer not in ids or ids.index(row.id) < ids.index(asker.viewer)


def exceeded(row: ContainerRow, what: str, *, hidden: bool) -> LimitExceeded:
    """A limit of this container would be exceeded."""
    if hidden:
        return LimitExceeded(
            "A limit of a container above yours would be exceeded.",
            resolution="Ask for less, destroy what is not needed, or ask whoever is above you.",
        )
    return LimitExceeded(
        f"Container {row.name or to_hex(row.id)} {what}.",
        resolution="Ask for less, destroy what is not needed, or raise its limit (`sysproc update`).",
        metadata={"limited_by": to_hex(row.id)},
    )


def too_much(row: ContainerRow, name: str, value: int, most: int, *, hidden: bool) -> LimitExceeded:
    """More is asked for than a container above has."""
    what = f"leaves at most {most} {UNITS[name]} to one at this place; {value} were asked for"
    return exceeded(row, what, hidden=hidden)


def in_use(row: ContainerRow, name: str, value: int, used: int) -> FailedPrecondition:
    """The limit cannot be lowered so far."""
    return FailedPrecondition(
        f"Container {row.name or to_hex(row.id)} cannot be limited to {value} {UNITS[name]}: there are {used}.",
        resolution="Destroy what is not needed first, or ask for a higher limit.",
        reason="LIMIT_IN_USE",
        metadata={"used": str(used)},
    )
