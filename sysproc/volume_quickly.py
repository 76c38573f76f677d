"""A volume that is put together of templates, which takes less time than to record that it shall be.

    file, in a thread of its own ──▶ on the disk ┐
    record, and the answer to the request ───────┴▶ commit        either both are there, or the file is a stranger

So the disk is waited for once. One that is slow is not waited for inside the transaction, where all other records would
wait with it: then the file comes first, and the record after it. Every other volume is made by `sysproc.volumes`, whose
recovery removes strangers; what files are made of is `sysproc.volume_files`.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress

import msgspec
from sqlalchemy import Connection

from sysproc.failpoints import failpoint
from sysproc.host import Host
from sysproc.storage import requests
from sysproc.storage import volumes as recorded
from sysproc.storage.quotas import Asker
from sysproc.storage.requests import RequestKey
from sysproc.storage.volumes import NewVolume, VolumeRow
from sysproc.to_end import outlasted, to_end

# Ten times what it takes.
PATIENCE_S = 0.02


class TooSlow(Exception):
    """The file takes longer than others should wait for."""


async def create_quickly(host: Host, new: NewVolume, asker: Asker, request: RequestKey | None) -> VolumeRow:
    """Make and record it, of templates that are there (`VolumeFiles.is_quick`), or nothing of it is left.

    What is asked for too much is refused before anything is written, and again when it is recorded.
    FileNotFoundError: a template has gone in this moment.
    """
    host.database.look(lambda c: recorded.check_volume(c, new, asker))
    made = host.volume_files.begin(new)

    async def record(file_is_there: Callable[[], None]) -> VolumeRow:
        async with host.volume_files.lock(new.id), host.storage_lock:
            return await host.database.write(lambda c: create_at_once(c, new, asker, request, file_is_there))

    try:
        with suppress(TooSlow):
            return await record(lambda: in_time(made))
        await settled(made)
        return await record(made.result)
    except BaseException:
        await settled(made)
        if await host.database.read(lambda c: recorded.by_id(c, new.id)) is None:
            await to_end(host.volume_files.remove, new)
        raise


async def settled(made: "Future[None]") -> None:
    """Until it is made, or failed; no thread waits for it."""
    await outlasted(asyncio.wait([asyncio.wrap_future(made)]))


def in_time(made: "Future[None]") -> None:
    """Wait for the file, but not for long. Raises TooSlow, or why it could not be made."""
    begun = made.running() or made.done()
    if not begun or wait([made], timeout=PATIENCE_S).not_done:
        raise TooSlow
    made.result()


def create_at_once(
    connection: Connection, new: NewVolume, asker: Asker, request: RequestKey | None, file_is_there: Callable[[], None]
) -> VolumeRow:
    """Record a volume as soon as its file is there, and the answer to the request."""
    row = recorded.insert_ready(connection, new, asker)
    if request is not None:
        requests.remember(connection, request, msgspec.json.encode(row))
    file_is_there()
    failpoint("volumes.create.before_record")
    return row
