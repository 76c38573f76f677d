"""Events: what changed, written in the transaction that changes it.

The service that streams them to watchers comes later; it resumes from a revision. Nothing is deleted yet.
"""

import time
from collections.abc import Mapping

from sqlalchemy import Connection

from sysproc.storage.schema import EVENTS


def write_event(connection: Connection, kind: str, subject: str, data: Mapping[str, object]) -> int:
    """Record one change; returns its revision, higher than all before, never used again."""
    values = {"at": time.time(), "kind": kind, "subject": subject, "data": dict(data)}
    revision = connection.execute(EVENTS.insert().values(values)).inserted_primary_key
    assert revision is not None
    return int(revision[0])
