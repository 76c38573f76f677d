"""The verbs of images: import, list, delete; and the roots that containers get from them.

    import:  tar -> unlinked file (its size and digest) -> fresh VSF -> mke2fs (job) -> unpack in the jail (job)
             -> images/<digest>.vsf -> recorded
    root:    template for this image and size (`sysproc.storage.templates`) -> clone

The tar is spooled first because the filesystem has to be made before it is filled: its size follows from the tar's, and
from what was counted in it meanwhile (`sysproc.tar_counter`); one that is too small nevertheless is made again, larger.
"""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sysproc.archive_size import MAX_ROOT_BYTES, MIB, AnyRoom, ArchiveCounter, rooms_for
from sysproc.archive_spool import Spooled, check_digest, spool_archive
from sysproc.busybox_image import IMAGE_NAME, busybox_tar, is_static
from sysproc.errors import (
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    SysprocError,
    Unavailable,
)
from sysproc.failpoints import failpoint
from sysproc.isolation.launcher_client import ChildFailed
from sysproc.jailed import Jails
from sysproc.sparse import copy_sparse
from sysproc.storage import images as recorded
from sysproc.storage.database import Database
from sysproc.storage.images import Content, Image, User
from sysproc.storage.state_dir import ContainerDirectory, StateDir
from sysproc.storage.templates import TemplateStore
from sysproc.storage.vsf.clone import (
    clone_vsf,
    fresh_vsf,
    grow_table,
    new_file,
)
from sysproc.storage.vsf.gpt import single_partition
from sysproc.tar_counter import TarCounter
from sysproc.to_end import to_end

DEFAULT_ROOT_BYTES = 1 << 30
FORMAT_TIMEOUT_S = 120.0
MOST_USERS = 1000


@dataclass(frozen=True)
class Imported:
    """What an import has brought."""

    image: Image
    existed: bool


@dataclass(frozen=True)
class Progress:
    """How far an import is."""

    received_bytes: int
    unpacked_bytes: int
    entries: int


class Images:
    """The images of this daemon; one instance, used from one event loop."""

    def __init__(self, database: Database, state_dir: StateDir, jails: Jails) -> None:
        self._database, self._state_dir, self._jails, self._launcher = database, state_dir, jails, jails.launcher
        self._templates = TemplateStore(state_dir.templates, ".vsf")
        self._one_import = asyncio.Lock()

    # -- reading

    def find(self, name: str) -> Content:
        """What the image of this name holds. Raises NotFound."""
        content = self._database.look(lambda c: recorded.content_named(c, name))
        if content is None:
            raise recorded.no_image(name)
        return content

    async def list(self, limit: int, after: str) -> Sequence[Image]:
        """Images by name, after one."""
        return await self._database.read(lambda c: recorded.list_images(c, limit=limit, after=after))

    async def get(self, name: str) -> tuple[Image, Sequence[User]]:
        """One image and who uses it, as many of them as are shown. Raises NotFound."""
        return await self._database.read(lambda c: recorded.image_and_users(c, name, limit=MOST_USERS))

    # -- roots of containers

    def root_bytes(self, name: str, content: Content, wanted: int | None) -> int:
        """The size of a container's root file. Raises InvalidArgument if the image does not fit into what is wanted."""
        if wanted is None:
            return max(DEFAULT_ROOT_BYTES, content.root_bytes)
        rounded = -(-wanted // MIB) * MIB
        if not content.root_bytes <= rounded <= MAX_ROOT_BYTES:
            raise bad_root_size(name, content.root_bytes, wanted)
        return rounded

    async def make_root(self, digest: str, root_bytes: int, container_id: str) -> ContainerDirectory:
        """The directory of a new container, with a root of its own. Raises ResourceExhausted; nothing is left then."""
        fill = partial(self._fill_template, self._vsf(digest), root_bytes)
        template = await self._templates.get(f"{digest}-{root_bytes}", fill)
        failpoint("images.root.after_template")
        return await to_end(self._clone, template, container_id)

    def _clone(self, template: Path, container_id: str) -> ContainerDirectory:
        directory = self._state_dir.make_container(container_id)
        clone_vsf(template, directory.root)
        return directory

    def _vsf(self, digest: str) -> Path:
        return self._state_dir.images / f"{digest}.vsf"

    async def _fill_template(self, image: Path, root_bytes: int, fd: int) -> None:
        source = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
        try:
            await to_end(copy_sparse, source, fd)
        finally:
            os.close(source)
        partition = grow_table(fd, root_bytes).partitions[0]
        failpoint("images.template.after_copy")
        values = {"offset": partition.offset_bytes, "size": partition.size_bytes}
        with job_failures("grow the root"), full_disk_as_enospc(self._state_dir.templates):
            await self._launcher.run_job("grow", values, [fd], timeout_s=FORMAT_TIMEOUT_S)
        failpoint("images.template.after_grow")

    # -- import and delete

    async def import_image(
        self,
        name: str,
        chunks: AsyncIterator[bytes],
        *,
        replace: bool = False,
        expected_digest: Callable[[], bytes | None] = lambda: None,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> Imported:
        """Import a tar under a name. expected_digest is asked when all chunks are there.

        Raises InvalidArgument (no tar, another digest), AlreadyExists (the name has other content), ResourceExhausted.
        """
        spool = os.open(self._state_dir.images, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            counter = ArchiveCounter(TarCounter())
            spooled = await spool_archive(spool, chunks, lambda size: progress(Progress(size, 0, 0)), counter)
            failpoint("images.import.after_spool")
            check_digest(spooled.digest, expected_digest())
            async with self._one_import:
                return await self._import_spooled(name, spool, spooled, replace, progress)
        finally:
            os.close(spool)

    async def _import_spooled(
        self, name: str, spool: int, spooled: Spooled, replace: bool, progress: Callable[[Progress], None]
    ) -> Imported:
        known = await self._database.read(lambda c: recorded.get_image(c, name))
        if known is not None and known.digest == spooled.digest:
            return Imported(known, existed=True)
        if known is not None and not replace:
            raise recorded.other_content(name)
        content = await self._content(spooled.digest)
        if content is None:
            content = await self._make(spool, spooled, progress)
        image = await self._database.write(lambda c: recorded.put_image(c, name, content, replace=replace))
        failpoint("images.import.after_record")
        await self._forget_unused()
        return Imported(image, existed=False)

    async def _content(self, digest: str) -> Content | None:
        return await self._database.read(lambda c: recorded.get_content(c, digest))

    async def _make(self, spool: int, spooled: Spooled, progress: Callable[[Progress], None]) -> Content:
        """Format a VSF and unpack the tar into it, into a larger one if it does not fit."""
        *rooms, last = rooms_for(spooled.unpacked_bytes, spooled.counts)
        for room in rooms:
            with suppress(TooSmall):
                return await self._make_in(room, spool, spooled, progress)
        return await self._make_in(last, spool, spooled, progress)

    async def _make_in(
        self, room: AnyRoom, spool: int, spooled: Spooled, progress: Callable[[Progress], None]
    ) -> Content:
        """The file appears when it is complete. Raises TooSmall."""
        gpt = single_partition(room.image_bytes(spooled.unpacked_bytes))
        partition = gpt.partitions[0]
        place = {"offset": partition.offset_bytes, "size": partition.size_bytes}
        target = self._vsf(spooled.digest)
        target.unlink(missing_ok=True)
        with new_file(target) as fd:
            fresh_vsf(fd, gpt)
            with job_failures("format the image"), full_disk_as_enospc(self._state_dir.images):
                values = {**place, "inodes": room.inodes(spooled.unpacked_bytes)}
                await self._launcher.run_job("format_ext4", values, [fd], timeout_s=FORMAT_TIMEOUT_S)
            failpoint("images.import.after_format")
            counts = await self._unpack(fd, spool, place, spooled.size, progress)
            failpoint("images.import.after_unpack")
            stored = os.fstat(fd).st_blocks * 512
        sizes = counts["bytes"], stored, gpt.disk_bytes
        return Content(spooled.digest, *sizes, counts["skipped_devices"], counts["entries"], counts["attribute_names"])

    async def _unpack(
        self, fd: int, spool: int, place: Mapping[str, int], size: int, progress: Callable[[Progress], None]
    ) -> Mapping[str, Any]:
        os.lseek(spool, 0, os.SEEK_SET)

        def told(counts: Mapping[str, Any]) -> None:
            progress(Progress(size, counts["bytes"], counts["entries"]))

        with job_failures("unpack the archive"), full_disk_as_enospc(self._state_dir.images):
            return await self._jails.run("unpack", place, [fd, spool], told)

    async def delete(self, name: str) -> None:
        """Forget an image; its files go when nothing uses them. Raises NotFound, FailedPrecondition."""
        await self._database.write(lambda c: recorded.delete_image(c, name))
        failpoint("images.delete.after_record")
        await self._forget_unused()

    async def _forget_unused(self) -> None:
        for digest in await self._database.write(recorded.delete_unused_contents):
            await to_end(self._remove_files, digest)

    def _remove_files(self, digest: str) -> None:
        self._vsf(digest).unlink(missing_ok=True)
        self._templates.forget(f"{digest}-")

    # -- at the start

    async def recover(self) -> None:
        """Remove files that no record knows, after a crash in the middle of an import or a delete."""
        await self._forget_unused()
        for path in self._state_dir.images.glob("*.vsf"):
            if await self._content(path.stem) is None:
                await to_end(self._remove_files, path.stem)
        await self._jails.reclaim()

    async def ensure_busybox(self, program: Path) -> None:
        """Import the embedded default, if there is no image of its name. Raises FailedPrecondition without busybox."""
        try:
            self.find(IMAGE_NAME)
        except NotFound:
            await self._import_busybox(program)

    async def _import_busybox(self, program: Path) -> None:
        if not program.exists() or not is_static(program):
            raise no_busybox(program)
        tar = await to_end(busybox_tar, program)

        async def chunks() -> AsyncIterator[bytes]:
            yield tar

        await self.import_image(IMAGE_NAME, chunks())


class TooSmall(InvalidArgument):
    """The image is full before the archive is unpacked."""


@contextmanager
def job_failures(what: str) -> Iterator[None]:
    """The failures of a job, in words for the caller."""
    try:
        yield
    except ChildFailed as failure:
        raise job_failed(what, failure) from failure


@contextmanager
def full_disk_as_enospc(directory: Path) -> Iterator[None]:
    """A filesystem in a sparse file meets the end of the host's disk as an error of its device."""
    try:
        yield
    except ChildFailed as failure:
        disk = os.statvfs(directory)
        if failure.errno not in (errno.EIO, errno.EROFS) or disk.f_bfree * disk.f_frsize > MIB:
            raise
        raise ChildFailed(errno.ENOSPC, failure.target) from failure


def job_failed(what: str, failure: ChildFailed) -> SysprocError:
    """The domain error for what a job says."""
    if failure.errno == errno.EBADMSG:
        return InvalidArgument(
            "The archive cannot be unpacked.",
            details=f"{failure.target}.",
            resolution="Send a tar (plain, gzip, xz, zstd), and all of it: its end is two blocks of zeros.",
            reason="BAD_ARCHIVE",
        )
    if failure.errno == errno.EINVAL:
        return InvalidArgument(
            "The archive has something that a container cannot have.",
            details=f"{failure.target}.",
            resolution="Make the archive without it.",
            reason="BAD_ARCHIVE",
        )
    if failure.errno == errno.EDQUOT:
        return TooSmall(
            "The archive takes far more room unpacked than its size tells.",
            details=f"{failure.target}.",
            resolution="Make the archive with an entry for each of its directories.",
            reason="BAD_ARCHIVE",
        )
    if failure.errno == errno.ENOSPC:
        return ResourceExhausted(
            f"There is no space left to {what}.",
            details=f"{failure}.",
            resolution="Free some space on the disk with the state directory.",
            reason="DISK_FULL",
        )
    if failure.errno in (errno.ENOMEM, errno.ETIME):
        return ResourceExhausted(
            f"It takes more than a job may have to {what}.",
            details=f"{failure.target}.",
            resolution="Make the archive smaller: fewer entries, or fewer bytes.",
            reason="JOB_LIMIT",
        )
    if failure.errno == errno.ENOPKG:
        return FailedPrecondition(
            f"This host has not the program that is needed to {what}.",
            details=f"{failure.target}.",
            resolution="Install the package that is named.",
            reason="TOOL_MISSING",
        )
    if failure.errno == errno.ECHILD:
        return Unavailable(
            f"What was to {what} was killed before it was done.",
            details=f"{failure.target}.",
            resolution="Try again; if it happens again, look for the kernel's out-of-memory messages.",
            reason="CHILD_KILLED",
        )
    return Internal(
        f"It was not possible to {what}.",
        details=f"{failure}.",
        resolution="See the daemon's log.",
        reason="JOB_FAILED",
    )


def bad_root_size(name: str, least: int, wanted: int) -> InvalidArgument:
    """The error for a root that is too small for its image, or absurdly large."""
    return InvalidArgument(
        f"A root of {wanted} bytes cannot be made from the image {name}.",
        details=f"It has to be between {least} and {MAX_ROOT_BYTES} bytes.",
        resolution="Ask for another size, or for none: the default is enough for the image.",
        reason="BAD_ROOT_SIZE",
        metadata={"least": str(least), "most": str(MAX_ROOT_BYTES)},
    )


def no_busybox(program: Path) -> FailedPrecondition:
    """The error for a host without a static busybox."""
    return FailedPrecondition(
        f"There is no static busybox at {program} to make the default image from.",
        resolution="Install the package busybox-static, or import an image of your own.",
        reason="NO_BUSYBOX",
    )
