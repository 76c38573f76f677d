"""The files of volumes: made, grown, removed. Each step is whole or has not happened, whatever dies meanwhile.

    make     filesystems: ext4 from a template, the others by their mkfs (job), each in a file of its own
             -> unnamed file: table, then what is in those -> <id>.vsf -> on the disk
    grow     copy (shared blocks where the disk can) -> larger table -> last filesystem grown in it (job)
             -> <id>.grown -> renamed over <id>.vsf

Growing works on a copy because resize2fs that is killed leaves a filesystem which is neither the old nor the new one.
A made file has its name before it is on the disk: if that is cut off, its record is not ready, and it is removed.
What is recorded, and when, is in `sysproc.volumes`; who owns what in `sysproc.storage.volumes`.
"""

import asyncio
import errno
import os
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from weakref import WeakValueDictionary

from sysproc.encrypted_files import EncryptedFiles, must_have
from sysproc.errors import FailedPrecondition
from sysproc.failpoints import failpoint
from sysproc.ids import to_hex
from sysproc.images import FORMAT_TIMEOUT_S, full_disk_as_enospc, job_failures
from sysproc.isolation.launcher_client import ChildFailed, Launcher
from sysproc.linux.files import is_open_elsewhere
from sysproc.linux.memory import SecretBuffer
from sysproc.sparse import copy_data, copy_sparse
from sysproc.storage.state_dir import StateDir
from sysproc.storage.templates import TemplateStore
from sysproc.storage.volumes import NONE, Filesystem, NewVolume, VolumeRow, encrypts
from sysproc.storage.vsf.clone import (
    disk_full_as_domain_error,
    fresh_vsf,
    give_name,
    grow_table,
    sync_directory,
    unnamed_file,
)
from sysproc.storage.vsf.ext4_uuid import set_uuid
from sysproc.storage.vsf.gpt import Gpt, Partition, read_gpt
from sysproc.storage.vsf.layout import Wanted, plan
from sysproc.to_end import to_end
from sysproc.unlocking import Unlocking

# Of these a copy becomes one of its own by another UUID in its superblocks; btrfs and xfs have theirs everywhere.
FROM_TEMPLATES = frozenset({"ext4"})
GROW_TIMEOUT_S = 3600.0
# We have a file open ourselves, to list or inspect volumes; or what decrypts it is just ending.
LOOK_S, _PAUSE_S = 5.0, 0.005
# Whom it takes long to find is looked for when it is no call's moment any more.
SOON_S = 0.2
_DAMAGED = (errno.EINVAL, errno.EUCLEAN, errno.EBADMSG)


# They wait for the disk most of the time.
_COMPOSERS = 4


async def unnoted(_: int) -> None:
    """Nobody wants to know."""


class VolumeFiles:
    """The files of all volumes of a state directory; one instance, from one event loop."""

    def __init__(self, state_dir: StateDir, launcher: Launcher, unlocking: Unlocking | None = None) -> None:
        self._state_dir, self._launcher = state_dir, launcher
        self.unlocking = unlocking or Unlocking(launcher)
        self.encrypted = EncryptedFiles(state_dir.volumes, launcher, self.unlocking)
        self._templates = TemplateStore(state_dir.templates, ".ext4")
        self._composers = ThreadPoolExecutor(_COMPOSERS, thread_name_prefix="volume-composer")
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        # Where one is mounted, in words; of whoever knows containers (`sysproc.volume_mounts`). It may block.
        self.places: Callable[[VolumeRow], Sequence[str]] = lambda _: ()
        # Who uses it where nothing of it is mounted for everybody, the same.
        self.users: Callable[[VolumeRow], Sequence[str]] = lambda _: ()

    def lock(self, volume_id: int) -> asyncio.Lock:
        """Whoever changes this volume, or its file, holds it."""
        return self._locks.setdefault(volume_id, asyncio.Lock())

    def path(self, row: VolumeRow | NewVolume) -> Path:
        """Where its file is."""
        return self._state_dir.volume(to_hex(row.id))

    # -- make

    def is_quick(self, new: NewVolume) -> bool:
        """Whether it is put together of templates that are there."""
        known = all(one.type in FROM_TEMPLATES and self._templates.has(name_of(one)) for one in new.filesystems)
        return known and new.encryption == NONE

    async def make(self, row: VolumeRow | NewVolume, secret: SecretBuffer | None = None) -> None:
        """The file of a new volume. Raises ResourceExhausted, FailedPrecondition (a tool); nothing is left then."""
        if row.encryption != NONE:
            await self.encrypted.make(row, must_have(secret, row), self.path(row))
            return
        wanted = [Wanted(one.label, one.size_bytes) for one in row.filesystems]
        gpt = plan(wanted, row.size_bytes)
        async with AsyncExitStack() as stack:
            sources = [await stack.enter_async_context(self._formatted(one)) for one in row.filesystems]
            failpoint("volumes.make.after_format")
            await to_end(compose, self.path(row), gpt, row.filesystems, sources)

    def begin(self, new: NewVolume) -> "Future[None]":
        """Begin to make the file of one that `is_quick`. FileNotFoundError: a template has gone in this moment.

        The threads do nothing else: who waits in another thread waits for the disk, or for others that wait for it.
        """
        gpt = plan([Wanted(one.label, one.size_bytes) for one in new.filesystems], new.size_bytes)
        with ExitStack() as stack:
            sources = list[int]()
            for one in new.filesystems:
                sources.append(os.open(self._templates.path(name_of(one)), os.O_RDONLY | os.O_CLOEXEC))
                stack.callback(os.close, sources[-1])
            made = self._composers.submit(compose, self.path(new), gpt, new.filesystems, sources)
            closing = stack.pop_all()
        made.add_done_callback(lambda _: closing.close())
        return made

    def close(self) -> None:
        """What was begun is finished; idempotent."""
        self._composers.shutdown()

    @asynccontextmanager
    async def _formatted(self, filesystem: Filesystem) -> AsyncIterator[int]:
        """A file with this filesystem and nothing else."""
        if filesystem.type not in FROM_TEMPLATES:
            with unnamed_file(self._state_dir.volumes) as fd:
                await self._format(fd, filesystem)
                yield fd
            return
        template = await self._template(filesystem)
        fd = os.open(template, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)

    async def _template(self, filesystem: Filesystem) -> Path:
        empty = Filesystem("", filesystem.type, filesystem.size_bytes, str(uuid.uuid4()))
        return await self._templates.get(name_of(empty), lambda fd: self._format(fd, empty))

    async def _format(self, fd: int, filesystem: Filesystem) -> None:
        with disk_full_as_domain_error(self._state_dir.volumes / "volume"):
            os.ftruncate(fd, filesystem.size_bytes)
        values = {"type": filesystem.type, "label": filesystem.label, "uuid": filesystem.uuid}
        with job_failures(f"format {filesystem.type}"), full_disk_as_enospc(self._state_dir.volumes):
            await self._launcher.run_job("format_whole", values, [fd], timeout_s=FORMAT_TIMEOUT_S)

    # -- grow

    async def grow(
        self, row: VolumeRow, secret: SecretBuffer | None = None, note: Callable[[int], Awaitable[None]] = unnoted
    ) -> int:
        """Let the file have the size that is recorded; the size of its last filesystem then.

        note: of an encrypted one is told that size before the file has it. Raises ResourceExhausted,
        FailedPrecondition; the file is as it was then.
        """
        target = self.path(row)
        with unnamed_file(target.parent) as fd:
            if encrypts(row, -1):
                last_bytes = await self.encrypted.grow(fd, row, must_have(secret, row), target)
                await note(last_bytes)
                failpoint("volumes.grow.after_note")
                await to_end(put_in_place, fd, target)
                return last_bytes
            last = await to_end(larger_copy, target, fd, row.size_bytes)
            failpoint("volumes.grow.after_copy")
            await self._grow(fd, row, last)
            await to_end(put_in_place, fd, target)
        return last.size_bytes

    async def _grow(self, fd: int, row: VolumeRow, last: Partition) -> None:
        values = {"offset": last.offset_bytes, "size": last.size_bytes, "type": row.filesystems[-1].type}
        with job_failures("grow the volume"), full_disk_as_enospc(self._state_dir.volumes), unmountable(row):
            await self._launcher.run_job("grow", values, [fd], timeout_s=GROW_TIMEOUT_S)

    def grown_last(self, row: VolumeRow) -> int | None:
        """The size of the last filesystem of a file that has grown to the recorded size; None: it has not. Blocks.

        Of one that is encrypted: 0 while that is not known, since it grew in use and that was cut off.
        """
        try:
            fd = os.open(self.path(row), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            grown = os.fstat(fd).st_size == row.size_bytes
            if encrypts(row, -1):
                return row.filesystems[-1].grown_bytes if grown else None
            return read_gpt(fd).partitions[-1].size_bytes if grown else None
        finally:
            os.close(fd)

    # -- use and end

    def check_unused(self, row: VolumeRow) -> None:
        """Raise FailedPrecondition, with what uses it, for a file that the kernel or a process has open. Blocks.

        A call that lists or inspects it has it for a moment, and so has what decrypted it for a container that has
        just ended: that is waited for.
        """
        fd, begun = os.open(self.path(row), os.O_RDONLY | os.O_CLOEXEC), time.monotonic()
        looks = [LOOK_S, SOON_S]
        try:
            while is_open_elsewhere(fd):
                if places := self.places(row):
                    raise in_use(row, places)
                if time.monotonic() - begun > looks[-1]:
                    users = self.users(row)
                    if users or looks.pop() == LOOK_S:
                        raise in_use(row, users or ["something of the service's host has its file open"])
                time.sleep(_PAUSE_S)
        finally:
            os.close(fd)

    def remove(self, row: VolumeRow | NewVolume) -> None:
        """Remove its file; nothing happens if there is none. Blocks."""
        self.path(row).unlink(missing_ok=True)

    def remove_strangers(self, known: Collection[int]) -> None:
        """Remove what is no volume's file. Blocks."""
        names = {self._state_dir.volume(to_hex(one)).name for one in known}
        for path in self._state_dir.volumes.iterdir():
            if path.name not in names:
                path.unlink()


def name_of(filesystem: Filesystem) -> str:
    """The template that it is made from."""
    return str(filesystem.size_bytes)


def compose(target: Path, gpt: Gpt, filesystems: Sequence[Filesystem], sources: Sequence[int]) -> None:
    """A file with this table and these filesystems, each from its own source; blocks.

    It has its name before it is on the disk, so that the disk is waited for once: nobody takes it for a volume before
    that is recorded, and of one that is not recorded as ready nothing is left at the next start.
    """
    with unnamed_file(target.parent) as fd, disk_full_as_domain_error(target):
        fresh_vsf(fd, gpt)
        for partition, filesystem, source in zip(gpt.partitions, filesystems, sources, strict=True):
            copy_data(source, fd, partition.offset_bytes)
            if filesystem.type in FROM_TEMPLATES:
                set_uuid(fd, partition.offset_bytes, uuid.UUID(filesystem.uuid), filesystem.label)
        failpoint("volumes.make.after_copy")
        give_name(fd, target)
        try:
            failpoint("volumes.make.after_name")
            os.fsync(fd)
            sync_directory(target.parent)
        except BaseException:
            target.unlink(missing_ok=True)
            raise


def larger_copy(source: Path, fd: int, size_bytes: int) -> Partition:
    """Copy a volume into an empty file and let its last partition reach to the new end; blocks."""
    source_fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with disk_full_as_domain_error(source):
            copy_sparse(source_fd, fd)
            return grow_table(fd, size_bytes).partitions[-1]
    finally:
        os.close(source_fd)


def put_in_place(fd: int, target: Path) -> None:
    """Let an unnamed file take the place of another, both whole at any moment; blocks."""
    grown = target.with_suffix(".grown")
    with disk_full_as_domain_error(target):
        os.fdatasync(fd)
        grown.unlink(missing_ok=True)
        give_name(fd, grown)
        failpoint("volumes.grow.before_rename")
        grown.rename(target)
        sync_directory(target.parent)


@contextmanager
def unmountable(row: VolumeRow) -> Iterator[None]:
    """What a kernel says of a filesystem that it does not take, in words for the caller."""
    try:
        yield
    except ChildFailed as failure:
        if failure.errno not in (*_DAMAGED, errno.ENODEV):
            raise
        why = "this kernel does not know its type" if failure.errno == errno.ENODEV else "it is damaged"
        raise FailedPrecondition(
            f"The last filesystem of the volume {row.name} cannot be grown: {why}.",
            details=f"{failure}.",
            resolution="The volume is as it was. The daemon's host says more in its kernel log.",
            reason="VOLUME_UNUSABLE",
        ) from failure


def in_use(row: VolumeRow, users: Sequence[str]) -> FailedPrecondition:
    """Something holds it."""
    return FailedPrecondition(
        f"The volume {row.name} is in use: {', '.join(users[:10])}.",
        resolution="End that first.",
        reason="VOLUME_IN_USE",
        metadata={"volume": row.name, "users": ",".join(users[:100])},
    )
