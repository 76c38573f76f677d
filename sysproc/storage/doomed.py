"""Dying subtrees, as recorded: marked in one transaction, deleted in batches, whatever their size.

A subtree of 1,000 costs a handful of statements, not thousands; each row has an event of its own all the same. The
other queries and changes are in `sysproc.storage.hierarchy`; in which order members go is in `sysproc.deepest_first`.
"""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection, bindparam, delete, select, update

from sysproc.ids import to_hex
from sysproc.storage import volumes
from sysproc.storage.events import write_events
from sysproc.storage.hierarchy import ContainerRow, no_container, subtree
from sysproc.storage.schema import CONTAINERS

DESTROYING = "destroying"
REASON = "destroyed by request"

_MARK = (
    update(CONTAINERS)
    .where(CONTAINERS.c.id == bindparam("which"))
    .values(state=DESTROYING, reason=REASON, revision=bindparam("at"))
)
_OF_THESE = (CONTAINERS.c.id.in_(bindparam("these", expanding=True)), CONTAINERS.c.state == DESTROYING)
_DYING, _DELETE = select(CONTAINERS.c.id).where(*_OF_THESE), delete(CONTAINERS).where(*_OF_THESE)


def begin_destroy(connection: Connection, container_id: int) -> list[ContainerRow]:
    """Mark the whole subtree `destroying`; the rows, deepest first. Their volumes go, or are inherited.

    Raises NotFound.
    """
    rows = subtree(connection, container_id)
    if not rows:
        raise no_container(container_id)
    fresh = [to_hex(row.id) for row in rows if row.state != DESTROYING]
    events = write_events(connection, "container.destroying", fresh, {"reason": REASON})
    revisions = dict(zip(fresh, events, strict=True))
    if fresh:
        connection.execute(_MARK, [{"which": name, "at": revisions[name]} for name in fresh])
    volumes.give_up(connection, [row.id for row in rows], rows[-1].parent_id)
    return [marked(row, revisions.get(to_hex(row.id))) for row in rows]


def marked(row: ContainerRow, revision: int | None) -> ContainerRow:
    """The row as it is now; None: it was marked before."""
    return row if revision is None else replace(row, state=DESTROYING, reason=REASON, revision=revision)


def delete_doomed(connection: Connection, gone: Sequence[ContainerRow]) -> None:
    """Remove the rows of containers that were being destroyed; what is below them is gone, or among them."""
    names = [to_hex(row.id) for row in gone]
    there = set(connection.scalars(_DYING, {"these": names}))
    connection.execute(_DELETE, {"these": names})
    write_events(connection, "container.destroyed", [name for name in names if name in there], {})
