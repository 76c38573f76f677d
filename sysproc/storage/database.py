"""The database: one file of SQLite, one writer thread, every write a durable transaction.

    await database.write(fn)    fn(connection) in BEGIN IMMEDIATE … COMMIT (synchronous FULL), in the writer's thread
    await database.read(fn)     fn(connection) in a snapshot of its own, in a reader's thread
    database.look(fn)           the same at once, in the caller's thread: for a few rows that are found by their keys

What is in the tables, and the functions to hand in, are in the modules beside this one.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection, event
from sqlalchemy.pool import QueuePool

from sysproc.errors import Internal, ResourceExhausted
from sysproc.storage.migrate import migrate

T = TypeVar("T")

READERS = 2
BUSY_TIMEOUT_MS = 10_000


class Database:
    """The hierarchy's database; open it once a process."""

    def __init__(self, path: Path) -> None:
        """Open, and migrate if it is of an older revision. Raises Internal for a damaged or newer file."""
        self._engine = make_engine(path)
        try:
            with self._engine.connect() as connection:
                migrate(connection)
        except sa.exc.DatabaseError as failure:
            self._engine.dispose()
            raise damaged(path, failure) from failure
        # Grows with every change, before whoever made it is told: what was read at this one is still so.
        self.revision = 0
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="database-writer")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="database-reader")

    async def write(self, change: Callable[[Connection], T]) -> T:
        """Run a change as one transaction, durable when this returns. Cancelled, it is finished all the same."""
        return await run_to_end(self._writer, lambda: self._transaction(change))

    def _transaction(self, change: Callable[[Connection], T]) -> T:
        with self._engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                result = change(connection)
                connection.exec_driver_sql("COMMIT")
                self.revision += 1
            except BaseException as failure:
                roll_back(connection)
                if disk_full(failure):
                    raise full() from failure
                raise
            return result

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run queries on one consistent snapshot."""
        return await run_to_end(self._readers, lambda: self._snapshot(query))

    def _snapshot(self, query: Callable[[Connection], T]) -> T:
        with self._engine.connect() as connection:
            driver: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]  # sqlite3 it is
            driver.execute("BEGIN")
            try:
                return query(connection)
            finally:
                driver.execute("ROLLBACK")

    def look(self, query: Callable[[Connection], T]) -> T:
        """Run a query of a few rows, found by their keys: that takes less time than handing it to another thread.

        Nothing that the writer does makes it wait (sqlite.org/wal.html, "Concurrency").
        """
        return self._snapshot(query)

    def close(self) -> None:
        """Finish what is under way and close the file; idempotent."""
        self._writer.shutdown(wait=True)
        self._readers.shutdown(wait=True)
        self._engine.dispose()


async def run_to_end(threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    """Like `sysproc.to_end`, in the database's own threads: a cancellation waits for the work."""
    running = asyncio.get_running_loop().run_in_executor(threads, work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise


def make_engine(path: Path) -> sa.Engine:
    """An engine whose transactions are ours: the driver begins none by itself."""
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=QueuePool, pool_size=READERS + 2, max_overflow=2)

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"busy_timeout={BUSY_TIMEOUT_MS}",
        ):
            connection.execute(f"PRAGMA {pragma}")

    return engine


def roll_back(connection: Connection) -> None:
    """Undo the transaction, unless SQLite has done so by itself (a full disk)."""
    if connection.connection.driver_connection.in_transaction:  # type: ignore[union-attr]  # sqlite3 has it
        connection.exec_driver_sql("ROLLBACK")


def disk_full(failure: BaseException) -> bool:
    """Whether SQLite says SQLITE_FULL."""
    code = getattr(getattr(failure, "orig", None), "sqlite_errorcode", None)
    return isinstance(failure, sa.exc.OperationalError) and code == sqlite3.SQLITE_FULL


def full() -> ResourceExhausted:
    """The error for a disk on which nothing can be recorded."""
    return ResourceExhausted(
        "The disk with the state directory is full: nothing was recorded.",
        resolution="Free some space there, then try again.",
        reason="DISK_FULL",
    )


def damaged(path: Path, failure: Exception) -> Internal:
    """The error for a file that cannot be used."""
    return Internal(
        f"The database {path} cannot be opened.",
        details=f"{failure.__cause__ or failure}.",
        resolution="Restore it from a backup, or start with another --state-dir.",
        reason="DATABASE_DAMAGED",
    )
