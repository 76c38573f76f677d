"""Migrations at the start: from whatever revision a file has to the head, in one transaction.

alembic is imported only when there is something to do: it costs half a second. The scripts are in
`sysproc.storage.migrations`; each is a step from one revision to the next.
"""

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Connection

from sysproc.errors import Internal

HEAD = "0007"
SCRIPTS = Path(__file__).with_name("migrations")


def stored_revision(connection: Connection) -> str | None:
    """The revision of the file; None for a new one."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()


def migrate(connection: Connection, scripts: Path = SCRIPTS, head: str = HEAD) -> None:
    """Bring the file to the head. Raises Internal for a file of a newer sysproc, or one that breaks foreign keys."""
    if stored_revision(connection) == head:
        return
    connection.rollback()
    # With foreign keys on, a table that is rebuilt (batch_alter_table) would take the rows of its children along.
    connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        _upgrade(connection, scripts, head)
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
        if broken:
            raise Internal(
                "The database could not be migrated: rows without their parents.",
                details=f"{broken[:5]}",
                resolution="Nothing was changed. Restore a backup, or report this.",
                reason="MIGRATION_FAILED",
            )
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise
    finally:
        connection.exec_driver_sql("PRAGMA foreign_keys=ON")


def _upgrade(connection: Connection, scripts: Path, head: str) -> None:
    from alembic.config import Config  # noqa: PLC0415 - only where there is something to migrate
    from alembic.runtime.environment import EnvironmentContext  # noqa: PLC0415 - only where there is something to migrate
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - only where there is something to migrate
    from alembic.util import CommandError  # noqa: PLC0415 - only where there is something to migrate

    config = Config()
    config.set_main_option("script_location", str(scripts))
    directory = ScriptDirectory.from_config(config)

    def steps(revision: object, _: object) -> object:
        return directory._upgrade_revs(head, revision)  # type: ignore[arg-type]  # as alembic's own command does

    with EnvironmentContext(config, directory, fn=steps) as environment:
        environment.configure(connection=connection, transactional_ddl=False, render_as_batch=True)
        try:
            environment.run_migrations()
        except CommandError as failure:
            raise Internal(
                "The database was made by another version of sysproc.",
                details=f"{failure}.",
                resolution="Run the newer sysprocd, or start with another --state-dir.",
                reason="DATABASE_NEWER",
            ) from failure
