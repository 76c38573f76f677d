"""Events: what changed, written in the transaction that changes it.

The service that streams them to watchers comes later; it resumes from a revision. Nothing is deleted yet.
"""

import time
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from sysproc.storage.schema import EVENTS

_INSERT = EVENTS.insert().returning(EVENTS.c.revision)
_INSERT_MANY = EVENTS.insert().returning(EVENTS.c.revision, sort_by_parameter_order=True)


def write_event(connection: Connection, kind: str, subject: str, data: Mapping[str, object]) -> int:
    """Record one change; returns its revision, higher than all before, never used again."""
    values = {"at": time.time(), "kind": kind, "subject": subject, "data": dict(data)}
    revision: int = connection.scalars(_INSERT, values).one()
    return revision


def write_events(
    connection: Connection, kind: str, subjects: Sequence[str], data: Mapping[str, object]
) -> Sequence[int]:
    """The same change of many, in this order; returns the revision of each."""
    if not subjects:
        return ()
    now, told = time.time(), dict(data)
    values = [{"at": now, "kind": kind, "subject": subject, "data": told} for subject in subjects]
    return connection.scalars(_INSERT_MANY, values).all()
