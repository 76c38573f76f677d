"""The tree of containers as recorded: names, paths, subtrees, pages, states. A real database in a temporary file."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sysproc.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from sysproc.storage import hierarchy
from sysproc.storage.database import Database
from sysproc.storage.doomed import begin_destroy
from sysproc.storage.hierarchy import ContainerRow, NewContainer
from sysproc.storage.images import Content, put_image

CONTENT = Content(digest="ab" * 32, content_bytes=1, stored_bytes=1, root_bytes=1, skipped_devices=0)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(tmp_path / "sysproc.db")
    await opened.write(lambda c: put_image(c, "busybox", CONTENT, replace=False))
    yield opened
    opened.close()


def new(number: int, parent: int | None = None, **values: Any) -> NewContainer:
    defaults: dict[str, Any] = {
        "name": "",
        "hostname": "h",
        "image_name": "busybox",
        "image_digest": CONTENT.digest,
        "memory_bytes": None,
        "cpu_millis": None,
        "pids": None,
        "root_bytes": 1,
        "environment": (),
        "labels": {},
        "profile": "default",
    }
    return NewContainer(id=number, parent_id=parent, **{**defaults, **values})


async def add(database: Database, number: int, parent: int | None = None, **values: Any) -> ContainerRow:
    return await database.write(lambda c: hierarchy.insert_container(c, new(number, parent, **values)))


async def test_what_was_recorded_comes_back(database: Database) -> None:
    environment = ((b"A", b"\xff\x00"[:1]), (b"B", b""))
    row = await add(database, 2**64 - 1, name="web", environment=environment, labels={"k": "v"}, memory_bytes=5)
    again = await database.read(lambda c: hierarchy.get_container(c, 2**64 - 1))
    assert again == row
    assert (row.environment, row.labels, row.memory_bytes, row.state) == (environment, {"k": "v"}, 5, "creating")


async def test_siblings_have_different_names_but_cousins_may_share_one(database: Database) -> None:
    await add(database, 1, name="a")
    await add(database, 2, 1, name="a")
    await add(database, 3)
    await add(database, 4)
    with pytest.raises(AlreadyExists):
        await add(database, 5, name="a")
    with pytest.raises(AlreadyExists):
        await add(database, 6, 1, name="a")


async def test_paths_of_names_and_ids_resolve_below_their_base(database: Database) -> None:
    await add(database, 1, name="a")
    await add(database, 2, 1, name="b")
    await add(database, 3, 2)

    async def found(base: int | None, *names: str) -> int | None:
        row = await database.read(lambda c: hierarchy.resolve_path(c, base, names))
        return None if row is None else row.id

    assert await found(None, "a", "b", f"{3:016x}") == 3
    assert await found(1, "b") == 2
    assert await found(None, "b") is None
    assert await found(None, f"{2:016x}") is None, "an id in a path is a child of what is before it"
    assert await database.read(lambda c: hierarchy.names_of(c, 3)) == ("a", "b", f"{3:016x}")


async def test_a_subtree_is_deepest_first_and_ends_with_its_top(database: Database) -> None:
    for number, parent in ((1, None), (2, 1), (3, 2), (4, 1), (5, None)):
        await add(database, number, parent)
    rows = await database.read(lambda c: hierarchy.subtree(c, 1))
    assert [row.id for row in rows] == [3, 2, 4, 1]


async def test_destroying_marks_all_at_once_and_nothing_is_created_below_any_more(database: Database) -> None:
    await add(database, 1)
    await add(database, 2, 1)
    doomed = await database.write(lambda c: begin_destroy(c, 1))
    assert [row.id for row in doomed] == [2, 1]
    with pytest.raises(FailedPrecondition, match="destroying"):
        await add(database, 3, 2)


async def test_a_parent_that_is_not_there_is_not_found(database: Database) -> None:
    with pytest.raises(NotFound):
        await add(database, 1, 99)


async def test_a_transition_from_another_state_changes_nothing(database: Database) -> None:
    row = await add(database, 1)
    with pytest.raises(FailedPrecondition, match="creating"):
        await database.write(lambda c: hierarchy.transition(c, 1, to="frozen", reason="", allowed_from=("running",)))
    assert await database.read(lambda c: hierarchy.get_container(c, 1)) == row


async def test_pages_follow_each_other_without_gap_or_repetition(database: Database) -> None:
    for number in range(1, 8):
        await add(database, number)
    seen: list[int] = []
    token = ""
    while True:
        page = await database.read(partial(hierarchy.list_page, under=None, limit=3, after=token))
        seen += [row.id for row in page.containers]
        token = page.next_token
        if not token:
            break
    assert seen == list(range(1, 8))


@pytest.mark.parametrize("token", ["x", "r", "r-1", "r" + "9" * 30, "r1;drop"])
async def test_a_foreign_page_token_is_refused(database: Database, token: str) -> None:
    with pytest.raises(InvalidArgument, match="page_token"):
        await database.read(lambda c: hierarchy.list_page(c, None, after=token))


async def test_labels_select(database: Database) -> None:
    await add(database, 1, labels={"tier": "web", "a.b/c": "1"})
    await add(database, 2, labels={"tier": "db"})

    async def ids(**labels: str) -> list[int]:
        page = await database.read(lambda c: hierarchy.list_page(c, None, labels=labels))
        return [row.id for row in page.containers]

    assert await ids(tier="web") == [1]
    assert await ids(tier="") == [1, 2]
    assert await ids(**{"a.b/c": "1"}) == [1]


async def test_every_change_has_a_revision_of_its_own(database: Database) -> None:
    first = await add(database, 1)
    second = await database.write(lambda c: hierarchy.update_container(c, 1, labels={"a": "b"}))
    assert int(second.etag) > int(first.etag)
