"""The database file: migrations, durability settings, transactions that are whole or not there."""

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from sysproc.errors import Internal, InvalidArgument
from sysproc.storage.database import Database, make_engine
from sysproc.storage.events import write_event
from sysproc.storage.migrate import HEAD, SCRIPTS, migrate, stored_revision
from sysproc.storage.requests import RequestKey, recall, remember
from sysproc.storage.schema import EVENTS, METADATA

TEST_STEP = """
import sqlalchemy as sa
from alembic import op
revision, down_revision, branch_labels, depends_on = "9999", "{head}", None, None
def upgrade() -> None:
    with op.batch_alter_table("image_contents") as table:
        table.add_column(sa.Column("note", sa.Text))
        table.alter_column("skipped_devices", nullable=True)
"""


def by_expression(difference: object) -> bool:
    """Of an index by an expression, which alembic cannot compare: it is looked at by itself."""
    return any(name in str(difference) for name in ("uq_containers_siblings", "uq_volumes_names"))


def test_the_migrations_lead_to_the_schema(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    Database(tmp_path / "a.db").close()
    engine = make_engine(tmp_path / "a.db")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        different = [one for one in compare_metadata(context, METADATA) if not by_expression(one)]
        assert different == []
        made = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name='uq_containers_siblings'").scalar()
        names = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name='uq_volumes_names'").scalar()
    assert made is not None and "UNIQUE" in made and "coalesce(parent_id, '')" in made
    assert names is not None and "UNIQUE" in names and "WHERE state != 'deleting'" in names
    engine.dispose()


def test_a_filled_database_keeps_every_row_through_a_migration_that_rebuilds_a_parent_table(tmp_path: Path) -> None:
    scripts = tmp_path / "migrations"
    (scripts / "versions").mkdir(parents=True)
    for source in [SCRIPTS / "env.py", *SCRIPTS.glob("versions/*.py")]:
        (scripts / source.relative_to(SCRIPTS)).write_text(source.read_text())
    (scripts / "versions" / "9999_test.py").write_text(TEST_STEP.format(head=HEAD))
    Database(tmp_path / "a.db").close()
    with sqlite3.connect(tmp_path / "a.db") as raw:
        raw.execute("PRAGMA foreign_keys=ON")
        raw.execute("INSERT INTO image_contents VALUES ('d',1,1,1,0,0,NULL,'{}')")
        raw.execute("INSERT INTO images VALUES ('n','d',0)")
    engine = make_engine(tmp_path / "a.db")
    with engine.connect() as connection:
        migrate(connection, scripts, "9999")
        assert stored_revision(connection) == "9999"
        assert connection.exec_driver_sql("SELECT name, digest FROM images").fetchall() == [("n", "d")]
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    engine.dispose()


def test_a_file_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    Database(tmp_path / "a.db").close()
    with sqlite3.connect(tmp_path / "a.db") as raw:
        raw.execute("UPDATE alembic_version SET version_num='7777'")
    with pytest.raises(Internal, match="another version"):
        Database(tmp_path / "a.db")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(Internal, match="cannot be opened"):
        Database(tmp_path / "a.db")


async def test_a_transaction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db")

    def change(connection: sa.Connection) -> None:
        write_event(connection, "test", "a", {})
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        await database.write(change)
    assert await database.read(lambda c: c.execute(sa.select(sa.func.count()).select_from(EVENTS)).scalar()) == 0
    database.close()


async def test_concurrent_writes_lose_no_update(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db")
    await database.write(lambda c: c.exec_driver_sql("CREATE TABLE counter (n INTEGER)"))
    await database.write(lambda c: c.exec_driver_sql("INSERT INTO counter VALUES (0)"))

    def increment(connection: sa.Connection) -> None:
        value = connection.exec_driver_sql("SELECT n FROM counter").scalar_one()
        connection.exec_driver_sql(f"UPDATE counter SET n={value + 1}")

    await asyncio.gather(*(database.write(increment) for _ in range(50)))
    assert await database.read(lambda c: c.exec_driver_sql("SELECT n FROM counter").scalar()) == 50
    database.close()


async def test_what_is_written_is_written_through(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db")
    pragmas = await database.read(
        lambda c: [
            c.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    )
    assert pragmas == ["wal", 2, 1]
    database.close()


async def test_an_answer_is_remembered_for_the_same_content_only(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db")
    key = RequestKey("host", "Create", "id", b"digest")
    await database.write(lambda c: remember(c, key, b"answer"))
    assert await database.read(lambda c: recall(c, key)) == b"answer"
    with pytest.raises(InvalidArgument, match="another request"):
        await database.read(lambda c: recall(c, RequestKey("host", "Create", "id", b"other")))
    assert await database.read(lambda c: recall(c, RequestKey("root", "Create", "id", b"other"))) is None
    database.close()


async def test_a_look_sees_what_was_written_and_waits_for_no_write(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db")
    written, may_end = threading.Event(), threading.Event()

    def change(connection: sa.Connection) -> None:
        write_event(connection, "kind", "subject", {})
        written.set()
        assert may_end.wait(30)

    writing = asyncio.ensure_future(database.write(change))
    await asyncio.to_thread(written.wait, 30)
    count = sa.select(sa.func.count()).select_from(EVENTS)
    during = database.look(lambda c: c.execute(count).scalar())
    may_end.set()
    await writing
    assert (during, database.look(lambda c: c.execute(count).scalar())) == (0, 1)
    database.close()
