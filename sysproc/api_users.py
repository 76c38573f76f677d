"""Who of a container, besides its uid 0, has authority at the API's socket inside; as it is recorded: a text.

    ""          nobody else               "all"     every user               "33,1000"   these uids

That uid 0 has it is decided in `sysproc.server.peer`, and what it is good for in `sysproc.server.interceptor`.
"""

from collections.abc import Iterable

EVERYONE = "all"


def written(everyone: bool, uids: Iterable[int]) -> str:
    """The text for these users."""
    return EVERYONE if everyone else ",".join(map(str, sorted(set(uids))))


def uids_of(text: str) -> tuple[int, ...]:
    """The uids that are named; none for everyone."""
    return () if text in ("", EVERYONE) else tuple(map(int, text.split(",")))


def includes(text: str, uid: int) -> bool:
    """Whether this user has authority, besides uid 0."""
    return text == EVERYONE or uid in uids_of(text)
