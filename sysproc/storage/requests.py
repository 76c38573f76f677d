"""Answers to requests with a request_id, kept for 24 hours: a repeat gets the first answer.

An answer is written in the transaction of the change that it tells of. Requests under way are in `sysproc.once`.
"""

import time
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, delete, select
from sqlalchemy.dialects.sqlite import insert

from sysproc.errors import InvalidArgument
from sysproc.storage.schema import REQUESTS

KEPT_S = 24 * 3600.0
_R = REQUESTS.c
_ANSWER = select(_R.digest, _R.answer).where(
    _R.caller == bindparam("caller"),
    _R.method == bindparam("method"),
    _R.request_id == bindparam("request_id"),
    _R.created_at > bindparam("since"),
)
_FORGET = delete(REQUESTS).where(_R.created_at <= bindparam("since"))
_REMEMBER = insert(REQUESTS).on_conflict_do_nothing()


@dataclass(frozen=True)
class RequestKey:
    """A request as its caller named it, and the digest of its content."""

    caller: str
    method: str
    request_id: str
    digest: bytes


def recall(connection: Connection, key: RequestKey) -> bytes | None:
    """The answer that was given, None if there was none. Raises InvalidArgument if the content was another."""
    named = {"caller": key.caller, "method": key.method, "request_id": key.request_id}
    row = connection.execute(_ANSWER, {**named, "since": time.time() - KEPT_S}).first()
    if row is None:
        return None
    if row.digest != key.digest:
        raise reused(key)
    answer: bytes = row.answer
    return answer


def remember(connection: Connection, key: RequestKey, answer: bytes) -> None:
    """Keep the answer; those that are too old go."""
    connection.execute(_FORGET, {"since": time.time() - KEPT_S})
    values = {
        "caller": key.caller,
        "method": key.method,
        "request_id": key.request_id,
        "digest": key.digest,
        "answer": answer,
        "created_at": time.time(),
    }
    connection.execute(_REMEMBER, values)


def reused(key: RequestKey) -> InvalidArgument:
    """The error for a request_id that stands for another request already."""
    return InvalidArgument(
        f"The request_id {key.request_id} was used for another request.",
        resolution="Send each request with a fresh UUID; repeat one only with the same content.",
        reason="REQUEST_ID_REUSED",
    )
