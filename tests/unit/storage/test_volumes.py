"""Volumes as recorded: names and owners, room, what becomes of them when an owner goes, what a crash leaves."""

import json
import sqlite3
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, select
from sqlalchemy.exc import IntegrityError

from sysproc.errors import AlreadyExists, FailedPrecondition, InvalidArgument, LimitExceeded, NotFound
from sysproc.storage import hierarchy, quotas, volumes
from sysproc.storage.database import Database, make_engine
from sysproc.storage.doomed import begin_destroy, delete_doomed
from sysproc.storage.images import put_image
from sysproc.storage.migrate import SCRIPTS, migrate
from sysproc.storage.schema import EVENTS
from sysproc.storage.volumes import Filesystem, NewVolume, VolumeRow
from sysproc.volume_refusals import check_trusted
from tests.unit.storage.test_hierarchy import CONTENT, new
from tests.unit.storage.test_quotas import HOST

TOP, MIDDLE, LEAF = 0xA, 0xB, 0xC
UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
MIB = 2**20


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """Three running containers, each below the one before; the top one has room for 100 MiB."""
    opened = Database(tmp_path / "sysproc.db")
    await opened.write(lambda c: put_image(c, "busybox", CONTENT, replace=False))
    for number, parent in ((TOP, None), (MIDDLE, TOP), (LEAF, MIDDLE)):
        await add_container(opened, number, parent, storage_bytes=100 * MIB if number == TOP else None)
    yield opened
    opened.close()


async def add_container(database: Database, number: int, parent: int | None, **values: Any) -> None:
    def write(connection: Any) -> None:
        hierarchy.insert_container(connection, new(number, parent, **values))
        hierarchy.transition(connection, number, to="running", reason="", allowed_from=("creating",))

    await database.write(write)


def wanted(number: int, owner: int | None = None, **values: Any) -> NewVolume:
    defaults: dict[str, Any] = {
        "name": f"v{number}",
        "size_bytes": 10 * MIB,
        "filesystems": (Filesystem("data", "ext4", 8 * MIB, UUID),),
        "on_destroy": "delete",
        "overcommit": False,
    }
    return NewVolume(id=number, owner_id=owner, **{**defaults, **values})


async def add(database: Database, number: int, owner: int | None = None, **values: Any) -> VolumeRow:
    def write(connection: Any) -> VolumeRow:
        volumes.insert_volume(connection, wanted(number, owner, **values), HOST)
        return volumes.finish_create(connection, number)

    return await database.write(write)


async def owners_and_names(database: Database) -> dict[int, tuple[int | None, str, str]]:
    rows = await database.read(volumes.all_volumes)
    return {row.id: (row.owner_id, row.name, row.state) for row in rows}


async def test_what_was_recorded_comes_back(database: Database) -> None:
    row = await add(database, 2**64 - 1, TOP, name="data")
    assert await database.read(lambda c: volumes.get_volume(c, TOP, "data")) == row
    assert (row.state, row.size_bytes, row.filesystems) == ("ready", 10 * MIB, wanted(1).filesystems)


async def test_a_volume_is_shown_when_it_is_ready_and_until_it_is_being_deleted(database: Database) -> None:
    await database.write(lambda c: volumes.insert_volume(c, wanted(1, TOP, name="data"), HOST))
    with pytest.raises(NotFound):
        await database.read(lambda c: volumes.get_volume(c, TOP, "data"))
    await database.write(lambda c: volumes.finish_create(c, 1))
    await database.read(lambda c: volumes.get_volume(c, TOP, "data"))
    await database.write(lambda c: volumes.begin_delete(c, 1))
    with pytest.raises(NotFound):
        await database.read(lambda c: volumes.get_volume(c, TOP, "data"))
    page = await database.read(lambda c: volumes.list_page(c, None, limit=9, after=""))
    assert page.volumes == ()


@pytest.mark.parametrize("owner", [None, TOP])
async def test_names_are_an_owners_to_give_once(database: Database, owner: int | None) -> None:
    await add(database, 1, owner, name="data")
    await add(database, 2, MIDDLE, name="data")
    with pytest.raises(AlreadyExists):
        await add(database, 3, owner, name="data")
    await database.write(lambda c: volumes.begin_delete(c, 1))
    await add(database, 3, owner, name="data")


async def test_the_table_itself_holds_names_and_states_to_the_rules(database: Database) -> None:
    await add(database, 1, TOP, name="data")
    await add(database, 2, TOP, name="other")
    for change in ("name='data'", "state='lost'", "on_destroy='keep'", "size_bytes=0", "owner_id='00000000000000ff'"):
        statement = f"UPDATE volumes SET {change} WHERE name='other'"
        with pytest.raises(IntegrityError):
            await database.write(partial(Connection.exec_driver_sql, statement=statement))


async def test_only_a_container_that_is_settled_owns_one(database: Database) -> None:
    with pytest.raises(NotFound):
        await add(database, 1, 0xF)
    await database.write(lambda c: hierarchy.insert_container(c, new(0xF)))
    with pytest.raises(FailedPrecondition, match="is creating"):
        await add(database, 1, 0xF)
    await database.write(lambda c: begin_destroy(c, LEAF))
    with pytest.raises(FailedPrecondition, match="is destroying"):
        await add(database, 1, LEAF)


async def test_a_list_has_what_is_below_in_pages(database: Database) -> None:
    for number, owner in enumerate((None, TOP, LEAF, MIDDLE), start=1):
        await add(database, number, owner)
    everything = await database.read(lambda c: volumes.list_page(c, None, limit=9, after=""))
    assert [row.id for row in everything.volumes] == [1, 2, 3, 4]
    first = await database.read(lambda c: volumes.list_page(c, MIDDLE, limit=1, after=""))
    rest = await database.read(lambda c: volumes.list_page(c, MIDDLE, limit=1, after=first.next_token))
    assert [row.id for row in (*first.volumes, *rest.volumes)] == [3, 4]
    assert rest.next_token == ""
    with pytest.raises(InvalidArgument):
        await database.read(lambda c: volumes.list_page(c, None, limit=1, after="nonsense"))


# -- room


async def test_volumes_count_against_the_storage_of_all_above(database: Database) -> None:
    await add(database, 1, LEAF, size_bytes=60 * MIB)
    used = await database.read(lambda c: quotas.storage_used(c, TOP, HOST))
    assert used == 60 * MIB + 3
    with pytest.raises(LimitExceeded, match="more do not fit"):
        await add(database, 2, MIDDLE, size_bytes=40 * MIB)
    await add(database, 2, MIDDLE, size_bytes=40 * MIB, overcommit=True)
    await add(database, 3, None, size_bytes=1000 * MIB)
    with pytest.raises(LimitExceeded):
        await database.write(lambda c: volumes.begin_grow(c, 1, 100 * MIB, HOST))
    await database.write(lambda c: volumes.begin_grow(c, 2, 2000 * MIB, HOST))


async def test_what_grows_has_its_new_size_at_once_and_its_old_one_if_it_did_not(database: Database) -> None:
    await add(database, 1, TOP)
    growing = await database.write(lambda c: volumes.begin_grow(c, 1, 20 * MIB, HOST))
    assert (growing.size_bytes, growing.grown_from) == (20 * MIB, 10 * MIB)
    await database.write(lambda c: volumes.undo_grow(c, 1))
    again = await database.write(lambda c: volumes.begin_grow(c, 1, 30 * MIB, HOST))
    assert again.grown_from == 10 * MIB
    grown = await database.write(lambda c: volumes.finish_grow(c, 1, 28 * MIB))
    assert (grown.size_bytes, grown.grown_from, grown.filesystems[-1].size_bytes) == (30 * MIB, None, 28 * MIB)


async def test_what_was_cut_off_and_did_not_grow_further_is_as_unfinished_as_it_was(database: Database) -> None:
    await add(database, 1, TOP)
    await database.write(lambda c: volumes.begin_grow(c, 1, 20 * MIB, HOST))
    for _ in range(2):
        await database.write(lambda c: volumes.begin_grow(c, 1, 30 * MIB, HOST))
        await database.write(lambda c: volumes.note_grown(c, 1, 28 * MIB))
        await database.write(lambda c: volumes.undo_grow(c, 1))
        now = await database.read(lambda c: volumes.get_volume(c, TOP, "v1"))
        assert (now.size_bytes, now.grown_from) == (20 * MIB, 20 * MIB)
        assert now.filesystems == wanted(1).filesystems
    await database.write(lambda c: volumes.begin_grow(c, 1, 20 * MIB, HOST))
    grown = await database.write(lambda c: volumes.finish_grow(c, 1, 18 * MIB))
    assert (grown.grown_from, grown.filesystems[-1].cut_off) == (None, False)
    await database.write(lambda c: volumes.begin_grow(c, 1, 30 * MIB, HOST))
    await database.write(lambda c: volumes.undo_grow(c, 1))
    now = await database.read(lambda c: volumes.get_volume(c, TOP, "v1"))
    assert (now.size_bytes, now.grown_from) == (20 * MIB, None)


# -- owners that go


async def test_an_owner_takes_its_volumes_along_or_leaves_them_to_who_is_above(database: Database) -> None:
    await add(database, 1, LEAF)
    await add(database, 2, LEAF, on_destroy="reparent")
    await add(database, 3, MIDDLE, on_destroy="reparent")
    await add(database, 4, TOP)
    doomed = await database.write(lambda c: begin_destroy(c, MIDDLE))
    assert await owners_and_names(database) == {
        1: (LEAF, "v1", "deleting"),
        2: (TOP, "v2", "ready"),
        3: (TOP, "v3", "ready"),
        4: (TOP, "v4", "ready"),
    }
    assert await database.read(volumes.doomed) == []
    await database.write(lambda c: delete_doomed(c, doomed))
    assert [row.id for row in await database.read(volumes.doomed)] == [1]


async def test_what_the_top_leaves_is_the_hosts(database: Database) -> None:
    await add(database, 1, TOP, on_destroy="reparent")
    await database.write(lambda c: begin_destroy(c, TOP))
    assert (await owners_and_names(database))[1] == (None, "v1", "ready")


async def test_a_volume_that_is_still_being_made_when_its_owner_goes_is_not_finished(database: Database) -> None:
    await database.write(lambda c: volumes.insert_volume(c, wanted(1, LEAF), HOST))
    await database.write(lambda c: volumes.insert_volume(c, wanted(2, LEAF, on_destroy="reparent"), HOST))
    await database.write(lambda c: begin_destroy(c, LEAF))
    with pytest.raises(FailedPrecondition, match="its owner is destroyed"):
        await database.write(lambda c: volumes.finish_create(c, 1))
    assert (await database.write(lambda c: volumes.finish_create(c, 2))).owner_id == MIDDLE


async def test_a_name_that_is_taken_above_gets_the_volumes_id(database: Database) -> None:
    await add(database, 1, TOP, name="data")
    await add(database, 2, MIDDLE, name="data", on_destroy="reparent")
    await add(database, 3, LEAF, name="data", on_destroy="reparent")
    await add(database, 4, TOP, name=f"data-{3:016x}")
    await database.write(lambda c: begin_destroy(c, MIDDLE))
    names = {number: name for number, (_, name, _) in (await owners_and_names(database)).items()}
    assert names == {1: "data", 2: f"data-{2:016x}", 3: f"data-{3:016x}.2", 4: f"data-{3:016x}"}


@given(name=st.text("abc", min_size=1, max_size=63), taken=st.integers(1, 12))
def test_a_name_given_on_the_way_up_is_free_and_one_that_can_be_given(name: str, taken: int) -> None:
    row = VolumeRow(7, None, name, 1, (), "reparent", False, volumes.MADE, "ready", None, 0.0, 1, 1)
    used = {name}
    for _ in range(taken):
        found = volumes.free_name(row, used)
        assert found not in used and 1 <= len(found) <= 63
        used.add(found)


# -- migrations


async def test_a_filled_database_of_before_gets_the_table_and_keeps_its_rows(tmp_path: Path) -> None:
    engine = make_engine(tmp_path / "a.db")
    with engine.connect() as connection:
        migrate(connection, SCRIPTS, "0002")
    engine.dispose()
    container = (
        "INSERT INTO containers (id, name, hostname, image_name, image_digest, root_bytes, environment, labels,"
        " profile, state, reason, oom_killed, created_at, created_revision, revision)"
        " VALUES ('000000000000000a', 'web', 'h', 'i', 'd', 5, ?, ?, 'default', 'running', '', 0, 0, 1, 1)"
    )
    with sqlite3.connect(tmp_path / "a.db") as raw:
        raw.execute("INSERT INTO image_contents VALUES ('d',1,1,1,0,0)")
        raw.execute("INSERT INTO images VALUES ('i','d',0)")
        raw.execute(container, (b"[]", json.dumps({"a": "b"})))
    raw.close()
    database = Database(tmp_path / "a.db")
    row = await database.read(lambda c: hierarchy.get_container(c, TOP))
    assert row is not None and (row.name, row.labels) == ("web", {"a": "b"})
    assert (await add(database, 1, TOP)).owner_id == TOP
    database.close()


async def test_where_its_contents_come_from_is_recorded_once_and_told_as_an_event(database: Database) -> None:
    row = await add(database, 1)
    assert row.origin == volumes.MADE
    for _ in range(2):
        row = await database.write(lambda c: volumes.set_origin(c, 1, volumes.FOREIGN))
    assert row.origin == volumes.FOREIGN
    kinds = await database.read(lambda c: c.execute(select(EVENTS.c.kind)).scalars().all())
    assert kinds.count("volume.foreign") == 1


async def test_what_is_being_deleted_comes_from_nowhere(database: Database) -> None:
    await add(database, 1)
    await database.write(lambda c: volumes.begin_delete(c, 1))
    with pytest.raises(FailedPrecondition):
        await database.write(lambda c: volumes.set_origin(c, 1, volumes.TRUSTED))


async def test_what_comes_from_elsewhere_is_not_for_the_kernel(database: Database) -> None:
    for number, origin in enumerate((volumes.MADE, volumes.TRUSTED), start=1):
        check_trusted(await add(database, number, origin=origin))
    foreign = await add(database, 3, origin=volumes.FOREIGN)
    with pytest.raises(FailedPrecondition, match="was written elsewhere") as refused:
        check_trusted(foreign)
    assert refused.value.reason == "VOLUME_NOT_TRUSTED"
