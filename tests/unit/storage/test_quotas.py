"""Limits that only shrink on the way down; what would exceed one is refused, with the figures, but not those above."""

from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any

import pytest

from sysproc.errors import FailedPrecondition, InvalidArgument, LimitExceeded
from sysproc.storage import hierarchy, quotas
from sysproc.storage.database import Database
from sysproc.storage.images import Content, put_image
from sysproc.storage.quotas import Asker
from tests.unit.storage.test_hierarchy import new

GIB = 2**30
TOP, MIDDLE, LEAF, UNCLE = 0xA, 0xB, 0xC, 0xD
CONTENT = Content(digest="ab" * 32, content_bytes=1, stored_bytes=1, root_bytes=1, skipped_devices=0)


def no_output(_: Collection[int]) -> int:
    return 0


HOST = Asker(None, no_output)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(tmp_path / "sysproc.db")
    await opened.write(lambda c: put_image(c, "busybox", CONTENT, replace=False))
    yield opened
    opened.close()


async def add(database: Database, number: int, parent: int | None = None, asker: Any = HOST, **values: Any) -> None:
    def insert(connection: Any) -> None:
        wanted = new(number, parent, **values)
        quotas.check_new(connection, wanted, asker)
        hierarchy.insert_container(connection, wanted)

    await database.write(insert)


async def change(database: Database, number: int, asker: Any = HOST, **values: Any) -> None:
    def write(connection: Any) -> None:
        row = hierarchy.get_container(connection, number)
        assert row is not None
        quotas.check_change(connection, row, values, asker)
        hierarchy.update_container(connection, number, **values)

    await database.write(write)


@pytest.mark.parametrize("name", ["memory_bytes", "cpu_millis", "pids", "storage_bytes"])
async def test_a_limit_is_at_most_the_least_of_those_above(database: Database, name: str) -> None:
    await add(database, TOP, **{name: 1000})
    await add(database, MIDDLE, TOP)
    with pytest.raises(LimitExceeded, match=r"leaves at most 1000 .*; 1001 were asked for"):
        await add(database, LEAF, MIDDLE, **{name: 1001})
    await add(database, LEAF, MIDDLE, **{name: 1000})
    with pytest.raises(LimitExceeded, match="1001"):
        await change(database, LEAF, **{name: 1001})
    await change(database, TOP, **{name: 1001})
    await change(database, LEAF, **{name: 1001})


@pytest.mark.parametrize("name", ["descendants", "depth"])
async def test_of_what_is_counted_one_less_is_left_at_each_level(database: Database, name: str) -> None:
    await add(database, TOP, **{name: 3})
    await add(database, MIDDLE, TOP, **{name: 2})
    with pytest.raises(LimitExceeded, match="leaves at most 1"):
        await add(database, LEAF, MIDDLE, **{name: 2})
    await add(database, LEAF, MIDDLE, **{name: 1})


async def test_no_more_containers_than_there_may_be(database: Database) -> None:
    await add(database, TOP, descendants=2)
    await add(database, MIDDLE, TOP)
    await add(database, LEAF, MIDDLE)
    for parent in (TOP, MIDDLE, LEAF):
        with pytest.raises(LimitExceeded, match="may have 2 containers below it, and has 2"):
            await add(database, UNCLE, parent)
    await change(database, TOP, descendants=None)
    await add(database, UNCLE, TOP)


async def test_no_deeper_than_it_may_be(database: Database) -> None:
    await add(database, TOP, depth=1)
    await add(database, MIDDLE, TOP)
    with pytest.raises(LimitExceeded, match="1 levels below it; this would be level 2"):
        await add(database, LEAF, MIDDLE)
    await change(database, MIDDLE, depth=0)


async def test_storage_is_what_all_roots_and_outputs_are_declared_to_be(database: Database) -> None:
    output = {TOP: 10, MIDDLE: 20}
    asker = Asker(None, lambda ids: sum(output.get(one, 0) for one in ids))
    await add(database, TOP, root_bytes=GIB, storage_bytes=3 * GIB)
    await add(database, MIDDLE, TOP, root_bytes=GIB)
    with pytest.raises(LimitExceeded, match=f"of which {2 * GIB + 30} are used; {GIB} more do not fit"):
        await add(database, LEAF, MIDDLE, asker, root_bytes=GIB)
    await add(database, LEAF, MIDDLE, asker, root_bytes=GIB - 30)
    with pytest.raises(LimitExceeded, match="1 more do not fit"):
        await database.read(lambda c: quotas.check_room(c, LEAF, 1, asker))
    await database.read(lambda c: quotas.check_room(c, LEAF, 30, HOST))
    await add(database, UNCLE, TOP, asker, root_bytes=9 * GIB, overcommit=True)
    assert await database.read(lambda c: quotas.storage_used(c, TOP, HOST)) == 3 * GIB - 30


async def test_a_root_fits_into_its_own_storage(database: Database) -> None:
    with pytest.raises(InvalidArgument, match="does not fit"):
        await add(database, TOP, root_bytes=GIB, storage_bytes=GIB - 1)


@pytest.mark.parametrize(("name", "used"), [("descendants", 2), ("depth", 2), ("storage_bytes", 3)])
async def test_what_is_there_already_keeps_a_limit_from_being_lowered(database: Database, name: str, used: int) -> None:
    await add(database, TOP)
    await add(database, MIDDLE, TOP)
    await add(database, LEAF, MIDDLE)
    with pytest.raises(FailedPrecondition, match=f"there are {used}"):
        await change(database, TOP, **{name: used - 1})
    await change(database, TOP, **{name: used})


@pytest.mark.parametrize("viewer", [MIDDLE, LEAF])
async def test_figures_of_containers_above_the_callers_own_are_not_told(database: Database, viewer: int) -> None:
    await add(database, TOP, descendants=3, memory_bytes=1234, name="secret")
    await add(database, MIDDLE, TOP)
    await add(database, LEAF, MIDDLE)
    await add(database, 0xF, LEAF)
    for values in ({}, {"memory_bytes": 1235}):
        with pytest.raises(LimitExceeded) as refused:
            await add(database, 0xE, LEAF, Asker(viewer, no_output), **values)
        assert "above yours" in str(refused.value)
        told = f"{refused.value} {refused.value.metadata}"
        assert not any(word in told for word in ("secret", "1234", f"{TOP:016x}"))
    with pytest.raises(LimitExceeded, match="secret"):
        await add(database, 0xE, LEAF, Asker(TOP, no_output))


async def test_a_container_that_lowers_its_own_limit_is_no_one_above(database: Database) -> None:
    await add(database, TOP, pids=100)
    await add(database, MIDDLE, TOP, pids=50)
    await change(database, MIDDLE, Asker(MIDDLE, no_output), pids=40)
    with pytest.raises(LimitExceeded, match="above yours"):
        await change(database, MIDDLE, Asker(MIDDLE, no_output), pids=101)
