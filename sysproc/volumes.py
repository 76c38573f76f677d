"""The verbs of volumes: create, get, list, grow, delete; and what becomes of them when their owner goes.

    create   intention (room is taken) -> file -> ready            a volume is shown when it is ready, and from then
      quick  of templates only: `sysproc.volume_quickly`           until it is marked as being deleted
    grow     intention (room is taken) -> file -> recorded
    shrink   file -> recorded
    delete   marked -> file removed -> row removed

The steps on files are in `sysproc.volume_files`, the records in `sysproc.storage.volumes`; a crash between two steps is
settled by `recover` at the next start. Which container may name which is settled before (`sysproc.server.targets`).
"""

import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import msgspec
import structlog
from sqlalchemy import Connection

from sysproc.compression import READ_ONLY
from sysproc.encrypted_files import must_have
from sysproc.errors import ResourceExhausted, SysprocError
from sysproc.failpoints import failpoint
from sysproc.host import Host
from sysproc.ids import new_volume_id, to_hex
from sysproc.linux.memory import SecretBuffer
from sysproc.once import Once, TaskOwner
from sysproc.storage import hierarchy, requests
from sysproc.storage import volumes as recorded
from sysproc.storage.hierarchy import ContainerRow
from sysproc.storage.quotas import Asker
from sysproc.storage.requests import RequestKey
from sysproc.storage.volumes import CREATING, DELETING, NONE, READY, Filesystem, NewVolume, Page, VolumeRow
from sysproc.to_end import to_end
from sysproc.volume_devices import VolumeDevices
from sysproc.volume_growth import VolumeGrowth
from sysproc.volume_quickly import create_quickly
from sysproc.volume_refusals import check_changeable, check_known, check_trusted
from sysproc.volume_resize import VolumeResize

log = structlog.get_logger()

DYING = "destroying"
T = TypeVar("T")


@dataclass(frozen=True)
class WantedFilesystem:
    """A filesystem that somebody asks for, of a size in whole MiB."""

    label: str
    type: str
    size_bytes: int
    compression: str = ""


@dataclass(frozen=True)
class Wanted:
    """A volume that somebody asks for; the fields are checked already (`sysproc.server.convert.volumes`).

    asked_by: the container of the caller, None on the host; owner_id: whose it will be, None for the host. secret: of
    an encrypted one; it is wiped when that is made.
    """

    asked_by: int | None
    owner_id: int | None
    name: str
    size_bytes: int
    filesystems: tuple[WantedFilesystem, ...]
    on_destroy: str
    overcommit: bool
    encryption: str = NONE
    secret: SecretBuffer | None = None


# Makes the file of a volume, whole or not at all; returns, of a snapshot, the moment that it shows.
Make = Callable[[VolumeRow], Awaitable[float | None]]


class Volumes:
    """All volumes of this daemon; one instance, used from one event loop."""

    def __init__(self, host: Host, tasks: TaskOwner) -> None:
        self._host, self._database, self._files = host, host.database, host.volume_files
        self._resize = VolumeResize(host.volume_files, host.launcher)
        self._growth = VolumeGrowth(host.volume_files, host.launcher, VolumeDevices(host.state_dir))
        self._once = Once(tasks)
        # What could not be recorded any more when the disk was full; tried again with each call.
        self._unsettled: set[int] = set()

    # -- reading

    async def get(self, owner: ContainerRow | None, name: str) -> VolumeRow:
        """The volume of an owner (None: the host) by its name. Raises NotFound."""
        await self.settle_what_is_left()
        return await self._database.read(lambda c: recorded.get_volume(c, id_of(owner), name))

    async def list(self, below: ContainerRow | None, limit: int, after: str) -> Page:
        """A page of the volumes of a container and of all below it; of all there are (None)."""
        await self.settle_what_is_left()
        return await self._database.read(lambda c: recorded.list_page(c, id_of(below), limit=limit, after=after))

    # -- create

    async def create(self, wanted: Wanted, request: RequestKey | None = None) -> VolumeRow:
        """Make a volume. Idempotent by the request's id."""
        return await self.answered_once(request, lambda: self._create(wanted, request))

    async def answered_once(
        self, request: RequestKey | None, work: Callable[[], Coroutine[Any, Any, VolumeRow]]
    ) -> VolumeRow:
        """The answer that is kept, or that of the work, which stores it (`finish_create`)."""
        answer = await self.kept(request)
        return answer if answer is not None else await self._once.run(request, work)

    async def to_its_end(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Work that goes on also if its caller goes away."""
        return await self._once.run(None, work)

    async def kept(self, request: RequestKey | None) -> VolumeRow | None:
        """The answer to a request that was carried out before."""
        if request is None:
            return None
        answer = self._database.look(lambda c: requests.recall(c, request))
        return None if answer is None else msgspec.json.decode(answer, type=VolumeRow)

    async def validate(self, wanted: Wanted) -> NewVolume:
        """What create would make, without an id; raises what it would raise, as far as that can be known."""
        new = self._new_row(0, wanted)
        await self._database.read(lambda c: recorded.check_volume(c, new, self._asker(wanted)))
        return new

    async def _create(self, wanted: Wanted, request: RequestKey | None) -> VolumeRow:
        with wanted.secret or nullcontext():
            return await self._create_with_secret(wanted, request)

    async def _create_with_secret(self, wanted: Wanted, request: RequestKey | None) -> VolumeRow:
        await self.settle_what_is_left()
        new = self._new_row(new_volume_id(), wanted)
        if self._files.is_quick(new):
            with suppress(FileNotFoundError):
                return await create_quickly(self._host, new, self._asker(wanted), request)

        async def made(row: VolumeRow) -> None:
            await self._files.make(row, wanted.secret)

        return await self.add(new, self._asker(wanted), made, request)

    async def add(
        self,
        new: NewVolume,
        asker: Asker,
        make: Make,
        request: RequestKey | None,
    ) -> VolumeRow:
        """Record the intention, make the file, record that it is ready; or nothing of it is left.

        make: returns, of a snapshot, the moment that it shows.
        """
        async with self._files.lock(new.id):
            async with self._host.storage_lock:
                row = await self._database.write(lambda c: recorded.insert_volume(c, new, asker))
            return await self._made(row, make, request)

    async def create_of(
        self, wanted: Wanted, size_bytes: int, filesystems: tuple[Filesystem, ...], make: Make
    ) -> VolumeRow:
        """A volume whose file is made otherwise, of what is known only now. Raises what creating one raises."""
        await self.settle_what_is_left()
        sized = replace(wanted, size_bytes=size_bytes)
        new = replace(self._new_row(new_volume_id(), sized), filesystems=filesystems)
        return await self.add(new, self._asker(sized), make, None)

    async def _made(self, row: VolumeRow, make: Make, request: RequestKey | None) -> VolumeRow:
        try:
            failpoint("volumes.create.after_intention")
            taken_at = await make(row)
            failpoint("volumes.create.after_file")
            return await self._database.write(lambda c: finish_create(c, row.id, request, taken_at))
        except BaseException:
            await self._forget(row, CREATING)
            raise

    def _new_row(self, volume_id: int, wanted: Wanted) -> NewVolume:
        if not wanted.overcommit:
            # The kernel answers from memory: a thread for it would take longer.
            self._host.state_dir.check_free(wanted.size_bytes)
        filesystems = [
            Filesystem(one.label, one.type, one.size_bytes, str(uuid.uuid4()), one.compression)
            for one in wanted.filesystems
        ]
        return NewVolume(
            id=volume_id,
            owner_id=wanted.owner_id,
            name=wanted.name,
            size_bytes=wanted.size_bytes,
            filesystems=tuple(filesystems),
            on_destroy=wanted.on_destroy,
            overcommit=wanted.overcommit,
            encryption=wanted.encryption,
        )

    def _asker(self, wanted: Wanted) -> Asker:
        return Asker(wanted.asked_by, self._host.output_bytes)

    async def _forget(self, row: VolumeRow, state: str) -> None:
        """Nothing of it is left, if it is in this state: its file goes first, so that none is forgotten."""
        await to_end(self._files.remove, row)
        failpoint("volumes.forget.after_file")
        with self._settled_later(row):
            await self._database.write(lambda c: recorded.delete_volume(c, row.id, only_in=(state,)))

    # -- grow and delete

    async def grow(
        self, row: VolumeRow, size_bytes: int, asked_by: int | None, secret: SecretBuffer | None = None
    ) -> VolumeRow:
        """Make its last filesystem reach to the end of a larger file. Of the size that it has already: nothing.

        secret: of an encrypted one; it is wiped then.
        """
        asker = Asker(asked_by, self._host.output_bytes)
        return await self._once.run(None, lambda: self._grow_with_secret(row.id, size_bytes, asker, secret))

    async def _grow_with_secret(
        self, volume_id: int, size_bytes: int, asker: Asker, secret: SecretBuffer | None
    ) -> VolumeRow:
        with secret or nullcontext():
            return await self._grow(volume_id, size_bytes, asker, secret)

    async def _grow(self, volume_id: int, size_bytes: int, asker: Asker, secret: SecretBuffer | None) -> VolumeRow:
        async with self._files.lock(volume_id):
            row = await self.must(volume_id)
            if row.filesystems[-1].type in READ_ONLY:
                raise recorded.never_written(row)
            if size_bytes < row.size_bytes:
                raise recorded.shrinks(row, size_bytes)
            if size_bytes == row.size_bytes and await to_end(self._resize.is_filled, row):
                return row
            check_changeable(row)
            check_trusted(row)
            check_known(row)
            if size_bytes != row.size_bytes:  # else it was cut off, and is allowed already
                recorded.check_grown(row, size_bytes)
            await to_end(self._check_growable, row)
            if not row.overcommit:
                await to_end(self._host.state_dir.check_free, size_bytes)
            await self._check_secret(row, secret)
            async with self._host.storage_lock:
                row = await self._database.write(lambda c: recorded.begin_grow(c, volume_id, size_bytes, asker))
            return await self._grow_file(row, secret)

    async def _check_secret(self, row: VolumeRow, secret: SecretBuffer | None) -> None:
        """Of what grows in a copy only whether there is one: nothing is lost there if it is wrong."""
        if not recorded.encrypts(row, -1):
            return
        if await to_end(self._grows_in_use, row):
            await self._growth.check_secret(row, secret)
        else:
            must_have(secret, row)

    def _check_growable(self, row: VolumeRow) -> None:
        if self._grows_in_use(row):
            self._resize.check_kernel(row)
        else:
            self._files.check_unused(row)

    def _grows_in_use(self, row: VolumeRow) -> bool:
        # What somebody has as raw blocks is no filesystem for the kernel.
        if row.origin == recorded.FOREIGN:
            return False
        if row.encryption != NONE and self._growth.is_open(row):
            return True
        return row.encryption != recorded.WHOLE and self._resize.is_mounted(row)

    async def _grow_file(self, row: VolumeRow, secret: SecretBuffer | None) -> VolumeRow:
        try:
            failpoint("volumes.grow.after_intention")
            last_bytes = await self._grown(row, secret)
        except BaseException:
            await self._settle_grown(row)
            raise
        failpoint("volumes.grow.after_file")
        with self._settled_later(row):
            return await self._database.write(lambda c: recorded.finish_grow(c, row.id, last_bytes))

    async def _grown(self, row: VolumeRow, secret: SecretBuffer | None = None) -> int:
        """Let file and last filesystem have the size that is recorded."""
        if await to_end(self._grows_in_use, row):
            return await (self._growth.grow(row, secret) if recorded.encrypts(row, -1) else self._resize.grow(row))

        async def note(last_bytes: int) -> None:
            # A growth that was cut off, asked for again: that the copy is in place would be told by no size.
            if row.grown_from != row.size_bytes:
                await self._database.write(lambda c: recorded.note_grown(c, row.id, last_bytes))

        return await self._files.grow(row, secret, note)

    async def _settle_grown(self, row: VolumeRow, *, last: bool = False) -> None:
        """Record what the file has become: it has grown, or it is as it was.

        One that is in use may have grown without its filesystem: the next start does the rest, or the next grow.
        """
        now = await self._database.read(lambda c: recorded.by_id(c, row.id)) or row
        last_bytes = await to_end(self._files.grown_last, now)
        with self._settled_later(row):
            if last_bytes is None:
                await self._database.write(lambda c: recorded.undo_grow(c, row.id))
            elif recorded.encrypts(now, -1):
                if last_bytes:
                    await self._database.write(lambda c: recorded.finish_grow(c, row.id, last_bytes))
            elif last or await to_end(self._resize.is_filled, row):
                await self._database.write(lambda c: recorded.finish_grow(c, row.id, last_bytes))

    async def shrink(self, row: VolumeRow, size_bytes: int) -> VolumeRow:
        """Make its last filesystem, and the file, smaller. Of the size that it has already: nothing."""
        return await self._once.run(None, lambda: self._shrink(row.id, size_bytes))

    async def _shrink(self, volume_id: int, size_bytes: int) -> VolumeRow:
        async with self._files.lock(volume_id):
            row = await self.must(volume_id)
            if size_bytes > row.size_bytes:
                raise recorded.grows(row, size_bytes)
            if size_bytes == row.size_bytes:
                return row
            check_changeable(row)
            check_trusted(row)
            await to_end(self._files.check_unused, row)
            last_bytes = await self._resize.shrink(row, size_bytes)
            failpoint("volumes.shrink.after_file")
            with self._settled_later(row):
                return await self._database.write(lambda c: recorded.shrunk(c, row.id, size_bytes, last_bytes))

    async def trust(self, row: VolumeRow) -> VolumeRow:
        """The host vouches for what is in it, from now on. Raises FailedPrecondition (in use)."""
        return await self._once.run(None, lambda: self._trust(row.id))

    async def _trust(self, volume_id: int) -> VolumeRow:
        async with self._files.lock(volume_id):
            row = await self.must(volume_id)
            if row.origin != recorded.FOREIGN:
                return row
            await to_end(self._files.check_unused, row)
            log.warning("the host vouches for what is in a volume", volume=to_hex(row.id), name=row.name)
            return await self._database.write(lambda c: recorded.set_origin(c, row.id, recorded.TRUSTED))

    async def delete(self, row: VolumeRow, request: RequestKey | None = None) -> None:
        """Delete a volume that nothing uses. Raises FailedPrecondition."""
        await self._once.run(request, lambda: self._delete(row.id, request))

    async def _delete(self, volume_id: int, request: RequestKey | None) -> None:
        async with self._files.lock(volume_id):
            row = await self.must(volume_id)
            await to_end(self._files.check_unused, row)
            await self._database.write(lambda c: begin_delete(c, row.id, request))
            failpoint("volumes.delete.after_mark")
            await self._forget(row, DELETING)

    async def must(self, volume_id: int) -> VolumeRow:
        """The volume as it is now; its lock is held. Raises FailedPrecondition if it is not there any more."""
        row = await self._database.read(lambda c: recorded.by_id(c, volume_id))
        if row is None or row.state != READY:
            raise recorded.gone(volume_id)
        return row

    # -- after a full disk, and at the start

    @contextmanager
    def _settled_later(self, row: VolumeRow) -> Iterator[None]:
        """What cannot be recorded for want of room is kept in mind."""
        try:
            yield
        except ResourceExhausted:
            self._unsettled.add(row.id)
            raise

    async def settle_what_is_left(self) -> None:
        """What could not be recorded when the disk was full is settled now, if there is room."""
        for volume_id in tuple(self._unsettled):
            async with self._files.lock(volume_id):
                row = await self._database.read(partial(recorded.by_id, volume_id=volume_id))
                self._unsettled.discard(volume_id)
                if row is not None:
                    with suppress(ResourceExhausted):  # then it is kept in mind again
                        await self._settle(row)

    async def recover(self) -> None:
        """Settle what a crash has left unfinished, and remove files that no record knows.

        What dying containers have still is left to their destroy.
        """
        rows = await self._database.read(recorded.all_volumes)
        for row in rows:
            async with self._files.lock(row.id):
                await self._settle(row)
        await to_end(self._files.remove_strangers, [row.id for row in rows])

    async def _settle(self, row: VolumeRow) -> None:
        if row.state == CREATING or (row.state == DELETING and not await self._owner_dies(row)):
            await self._forget(row, row.state)
            log.warning("unfinished volume removed", volume=to_hex(row.id), state=row.state)
        elif row.grown_from is not None and row.state == READY:
            await self._finish_growth(row)
            await self._settle_grown(row, last=True)
            log.warning("unfinished growth looked after", volume=to_hex(row.id))
        elif row.state == READY and (sizes := await to_end(self._resize.shrunk, row)) is not None:
            await self._database.write(lambda c: recorded.shrunk(c, row.id, *sizes))
            log.warning("volume had been shrunk, which is recorded now", volume=to_hex(row.id))

    async def _finish_growth(self, row: VolumeRow) -> None:
        """Of one that grew while it was in use: what is not done yet, if it can be done now."""
        last_bytes = await to_end(self._files.grown_last, row)
        encrypted = recorded.encrypts(row, -1)
        if last_bytes is None or (encrypted and last_bytes):
            return
        if not encrypted and await to_end(self._resize.is_filled, row):
            return
        try:
            grown = await self._grown(row)
            if encrypted:
                await self._database.write(lambda c: recorded.finish_grow(c, row.id, grown))
        except (SysprocError, OSError) as failure:
            log.warning("growth not finished: the filesystem is smaller than its volume", error=str(failure))

    async def _owner_dies(self, row: VolumeRow) -> bool:
        owner_id = row.owner_id
        if owner_id is None:
            return False
        owner = await self._database.read(lambda c: hierarchy.get_container(c, owner_id))
        return owner is not None and owner.state == DYING


def id_of(container: ContainerRow | None) -> int | None:
    """None stands for the host."""
    return None if container is None else container.id


def finish_create(
    connection: Connection, volume_id: int, request: RequestKey | None, taken_at: float | None
) -> VolumeRow:
    """Record that it is ready, and the answer to the request."""
    row = recorded.finish_create(connection, volume_id, taken_at)
    if request is not None:
        requests.remember(connection, request, msgspec.json.encode(row))
    return row


def begin_delete(connection: Connection, volume_id: int, request: RequestKey | None) -> None:
    """Mark it, and record the answer to the request: from here on it is gone for everybody, also after a crash."""
    recorded.begin_delete(connection, volume_id)
    if request is not None:
        requests.remember(connection, request, b"")
