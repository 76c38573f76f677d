"""Foreign files become volumes of ours: what is in them is copied into fresh filesystems, without the kernel.

    file of others -> its parts -> for each: fresh ext4 (job) -> its entries read and made in the jail (job)
                                             larger, if it does not fit; its journal replayed before (job), in a copy
    -> unnamed file: table, then what was made -> its name

So the kernel mounts only what our mkfs has made (docs/VSF.md). Read are ext2, ext3, ext4 and erofs
(`sysproc.isolation.readers`); what else there is has to be vouched for by the host, or is refused.
"""

import errno
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sysproc.errors import InvalidArgument
from sysproc.images import FORMAT_TIMEOUT_S, TooSmall, full_disk_as_enospc, job_failures
from sysproc.isolation.launcher_client import ChildFailed
from sysproc.jailed import Jails
from sysproc.sparse import copy_sparse
from sysproc.storage.volumes import Filesystem
from sysproc.storage.vsf.clone import disk_full_as_domain_error, unnamed_file
from sysproc.storage.vsf.disk import Part, read_disk
from sysproc.storage.vsf.layout import Wanted, aligned, least_disk_bytes, plan
from sysproc.to_end import to_end
from sysproc.volume_files import compose

MIB = 1 << 20
READ = frozenset({"ext2", "ext3", "ext4", "erofs"})
DEFAULT_LABEL = "data"
_LABEL_BYTES = 16
_LEAST_BYTES = 8 * MIB
# As large as it is; else with more room for ext4's tables, and for erofs, which has none and shares blocks.
_PERCENT = (100, 130, 250, 500, 1000)
_MORE_ROOM = 24 * MIB

Progress = Callable[[Mapping[str, Any]], None]
# Raises if a volume of this size cannot be made.
Room = Callable[[int], Awaitable[None]]


async def any_room(_: int) -> None:
    """As large as it becomes."""


@dataclass(frozen=True)
class Remade:
    """What a file of others has become. skipped: device nodes and attributes that no container may have.

    fds: a file for each filesystem; there as long as the block of `remade`.
    """

    size_bytes: int
    filesystems: tuple[Filesystem, ...]
    fds: tuple[int, ...]
    entries: int
    skipped: int

    def write(self, target: Path) -> None:
        """The file of a volume, whole or not there; blocks. Raises ResourceExhausted."""
        gpt = plan([Wanted(one.label, one.size_bytes) for one in self.filesystems], self.size_bytes)
        compose(target, gpt, self.filesystems, self.fds)


@asynccontextmanager
async def remade(
    jails: Jails, source_fd: int, directory: Path, progress: Progress = lambda _: None, room: Room = any_room
) -> AsyncIterator[Remade]:
    """Copy what is in a file of others into filesystems of ours, on the disk of this directory.

    room: is asked before each filesystem is begun. Raises InvalidArgument (damaged, or nothing that is read),
    FailedPrecondition (a tool), ResourceExhausted, and what `room` does.
    Nothing is left after the block but what was written then: how large that is can be recorded before.
    """
    parts = await to_end(read_disk, source_fd)
    for part in parts:
        check_read(part)
    if not parts:
        raise no_partition()
    work = _Remaking(jails, source_fd, directory, progress, room)
    with ExitStack() as stack:
        made = []
        for part, label in zip(parts, labels_of(parts), strict=True):
            made.append(await work.part(part, label))
            stack.callback(os.close, made[-1][0])
        filesystems = tuple(filesystem for _, filesystem in made)
        size = least_disk_bytes([one.size_bytes for one in filesystems])
        yield Remade(size, filesystems, tuple(fd for fd, _ in made), work.entries, work.skipped)


class _Remaking:
    """One file of others, part by part."""

    def __init__(self, jails: Jails, source_fd: int, directory: Path, progress: Progress, room: Room) -> None:
        self._jails, self._source_fd, self._directory, self._progress = jails, source_fd, directory, progress
        self._room, self._made = room, list[int]()
        self.entries, self.skipped = 0, 0

    async def part(self, part: Part, label: str) -> tuple[int, Filesystem]:
        """A file with a filesystem of ours that has what is in this part; the fd is the caller's."""
        for percent in _PERCENT[:-1]:
            with suppress(TooSmall):
                return await self._part(part, label, room_for(part, percent))
        return await self._part(part, label, room_for(part, _PERCENT[-1]))

    async def _part(self, part: Part, label: str, size: int) -> tuple[int, Filesystem]:
        filesystem = Filesystem(label, "ext4", size, str(uuid.uuid4()))
        await self._room(least_disk_bytes([*self._made, size]))
        with unnamed_file(self._directory) as fd:
            await self._format(fd, filesystem)
            counts = await self._fill(fd, size, part)
            self.entries += counts["entries"]
            self.skipped += counts["skipped_devices"] + counts["skipped_attributes"]
            self._made.append(size)
            return os.dup(fd), filesystem

    async def _format(self, fd: int, filesystem: Filesystem) -> None:
        with disk_full_as_domain_error(self._directory / "volume"):
            os.ftruncate(fd, filesystem.size_bytes)
        values = {"type": "ext4", "label": filesystem.label, "uuid": filesystem.uuid}
        with job_failures("format ext4"), full_disk_as_enospc(self._directory):
            await self._jails.launcher.run_job("format_whole", values, [fd], timeout_s=FORMAT_TIMEOUT_S)

    async def _fill(self, fd: int, size: int, part: Part) -> Mapping[str, Any]:
        try:
            return await self._unpack(fd, size, part, self._source_fd)
        except NeedsRecovery:
            async with self._replayed(part) as copy:
                return await self._unpack(fd, size, part, copy)

    async def _unpack(self, fd: int, size: int, part: Part, source_fd: int) -> Mapping[str, Any]:
        place = {"kind": kind_of(part), "offset": part.offset_bytes, "size": part.size_bytes}
        values = {"offset": 0, "size": size, "source": place}
        with job_failures("copy the filesystem"), full_disk_as_enospc(self._directory), reading_failures(part):
            return await self._jails.run("unpack_filesystem", values, [fd, source_fd], self._progress)

    @asynccontextmanager
    async def _replayed(self, part: Part) -> AsyncIterator[int]:
        """A copy of the file whose journal, in this part, is empty."""
        with unnamed_file(self._directory) as copy:
            with disk_full_as_domain_error(self._directory / "volume"):
                await to_end(copy_sparse, self._source_fd, copy)
            place = {"offset": part.offset_bytes, "size": part.size_bytes}
            values = {**place, "type": "ext4", "mode": "replay"}
            with job_failures("replay the journal"), full_disk_as_enospc(self._directory):
                await self._jails.run("check", values, [copy])
            try:
                yield copy
            except NeedsRecovery as failure:
                raise damaged(part, f"{failure.details} e2fsck could not do it.") from failure


def kind_of(part: Part) -> str:
    """What is in it; empty for nothing that is known."""
    return part.contents.kind if part.contents else ""


def room_for(part: Part, percent: int) -> int:
    """How large a filesystem is made for this part."""
    more = 0 if percent == _PERCENT[0] else _MORE_ROOM
    return max(_LEAST_BYTES, aligned(part.size_bytes * percent // 100 + more))


def labels_of(parts: Sequence[Part]) -> list[str]:
    """Labels that ext4 and the table can have, each once: that of the partition, of the filesystem, or `data`."""
    labels: list[str] = []
    for part in parts:
        said = part.label or (part.contents.label if part.contents else "")
        kept = "".join(one for one in said if one.isascii() and (one.isalnum() or one in "._-")).lstrip("._-")
        label, count = kept[:_LABEL_BYTES] or DEFAULT_LABEL, 1
        base = label
        while label in labels:
            count += 1
            label = f"{base[: _LABEL_BYTES - len(str(count)) - 1]}-{count}"
        labels.append(label)
    return labels


# -- failures

OTHER_WAYS = (
    "Let the host import it with --trust, if it knows where it comes from; or make an image of ext4 or erofs of what is"
    " in it; or keep it with --as-is, for a raw disk."
)


class NeedsRecovery(InvalidArgument):
    """The journal of the filesystem has to be replayed before it is read."""


def check_read(part: Part) -> None:
    """Raise InvalidArgument unless what is in it can be read here."""
    kind = kind_of(part)
    if kind not in READ:
        raise InvalidArgument(
            f"What is in the partition {part.label!r} cannot be copied: it is {kind or 'nothing that is known here'}.",
            resolution=OTHER_WAYS,
            reason="VOLUME_NOT_READABLE",
            metadata={"type": kind},
        )


@contextmanager
def reading_failures(part: Part) -> Iterator[None]:
    """What a reader says, in words for the caller."""
    try:
        yield
    except ChildFailed as failure:
        if failure.errno == errno.EUCLEAN:
            raise NeedsRecovery(
                f"{failure.target}.", resolution="Run e2fsck on it.", reason="VOLUME_DAMAGED"
            ) from failure
        if failure.errno == errno.EBADMSG:
            raise damaged(part, f"{failure.target}.") from failure
        if failure.errno == errno.EOPNOTSUPP:
            raise not_supported(part, failure) from failure
        raise


def no_partition() -> InvalidArgument:
    """It is a disk, and empty."""
    return InvalidArgument(
        "There is no partition on this disk.",
        resolution="Import the image of a disk with one, or a file that is one filesystem.",
        reason="VSF_BROKEN",
    )


def damaged(part: Part, why: str) -> InvalidArgument:
    """The filesystem is not whole, or was made to mislead."""
    return InvalidArgument(
        f"The {kind_of(part)} cannot be copied.",
        details=why,
        resolution="Repair it where it comes from: e2fsck -f, fsck.erofs.",
        reason="VOLUME_DAMAGED",
    )


def not_supported(part: Part, failure: ChildFailed) -> InvalidArgument:
    """It has something that is not read here."""
    return InvalidArgument(
        f"The {kind_of(part)} cannot be copied.",
        details=f"{failure.target}.",
        resolution=OTHER_WAYS,
        reason="VOLUME_NOT_READABLE",
    )
