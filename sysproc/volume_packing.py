"""The verb that makes a read-only volume of a tar: erofs or squashfs, compressed, as large as it has to be.

    tar -> unlinked file -> unlinked ext4 (job), unpacked there in the jail (job) -> packed by its tool in a jail (job)
    -> its size is known now: intention (room is taken) -> file: table, then what was packed -> ready

What a volume is besides is in `sysproc.volumes`. How a tar becomes the root of containers is in `sysproc.images`.
"""

import errno
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from sysproc.archive_size import AnyRoom, ArchiveCounter, rooms_for
from sysproc.archive_spool import Spooled, check_digest, spool_archive
from sysproc.compression import parted
from sysproc.errors import FailedPrecondition
from sysproc.failpoints import failpoint
from sysproc.host import Host
from sysproc.images import FORMAT_TIMEOUT_S, Progress, TooSmall, full_disk_as_enospc, job_failures
from sysproc.isolation.launcher_client import ChildFailed
from sysproc.storage.volumes import Filesystem, NewVolume, VolumeRow
from sysproc.storage.vsf.clone import disk_full_as_domain_error, unnamed_file
from sysproc.storage.vsf.layout import Wanted as Place
from sysproc.storage.vsf.layout import aligned, least_disk_bytes, plan
from sysproc.storage.vsf.probe import probe
from sysproc.to_end import to_end
from sysproc.volume_files import compose
from sysproc.volumes import Volumes, Wanted, WantedFilesystem

# Of a target, which is a hole until something is written: more than what does not shrink takes.
_MORE_ROOM, _SHARE = 64 << 20, 8
_CHECKED_EVERY = 16 << 20
Told = Callable[[Progress], None]


@dataclass(frozen=True)
class WantedPacked:
    """A read-only volume that somebody asks for; its size is open yet."""

    wanted: Wanted

    @property
    def filesystem(self) -> WantedFilesystem:
        """Its only one."""
        return self.wanted.filesystems[0]


@dataclass(frozen=True)
class Packed:
    """What was made. skipped_devices: device nodes of the tar."""

    volume: VolumeRow
    skipped_devices: int


class VolumePacking:
    """One instance, used from one event loop."""

    def __init__(self, host: Host, volumes: Volumes) -> None:
        self._host, self._jails, self._volumes = host, host.jails, volumes
        self._directory = host.state_dir.volumes

    async def create_from(
        self, asked: WantedPacked, chunks: AsyncIterator[bytes], expected_digest: Callable[[], bytes | None], told: Told
    ) -> Packed:
        """Make it. Raises what creating a volume raises, and InvalidArgument (the tar). A call that ends makes none."""
        await self._volumes.validate(asked.wanted)
        with ExitStack() as stack:
            spool = stack.enter_context(unnamed_file(self._directory))
            bounded = self._within_storage(asked.wanted, chunks)
            spooled = await spool_archive(spool, bounded, lambda size: told(Progress(size, 0, 0)), ArchiveCounter())
            check_digest(spooled.digest, expected_digest())
            await self._check_room(asked.wanted, spooled.unpacked_bytes)
            failpoint("volumes.pack.after_spool")
            content, counts = await self._content(spool, spooled, told)
            stack.callback(os.close, content)
            failpoint("volumes.pack.after_unpack")
            packed, filesystem = await self._packed(content, asked)
            stack.callback(os.close, packed)
            failpoint("volumes.pack.after_pack")
            return Packed(await self._recorded(asked, filesystem, packed), counts["skipped_devices"])

    async def _within_storage(self, wanted: Wanted, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same, as long as there is room for it as it comes in."""
        size = checked = 0
        async for chunk in chunks:
            size += len(chunk)
            if size - checked >= _CHECKED_EVERY:
                await self._check_room(wanted, size)
                checked = size
            yield chunk

    async def _check_room(self, wanted: Wanted, size: int) -> None:
        """Not compressed it is the host's disk that it takes: it must fit into what its owner may have, so as well."""
        await self._volumes.validate(replace(wanted, size_bytes=aligned(size)))

    async def _content(self, spool: int, spooled: Spooled, told: Told) -> tuple[int, Mapping[str, Any]]:
        """An ext4 with what is in the tar, and the counts; in a larger one if it does not fit."""
        *rooms, last = rooms_for(spooled.unpacked_bytes, None)
        for room in rooms:
            with suppress(TooSmall):
                return await self._content_in(room, spool, spooled, told)
        return await self._content_in(last, spool, spooled, told)

    async def _content_in(
        self, room: AnyRoom, spool: int, spooled: Spooled, told: Told
    ) -> tuple[int, Mapping[str, Any]]:
        size, inodes = room.image_bytes(spooled.unpacked_bytes), room.inodes(spooled.unpacked_bytes)
        place = {"offset": 0, "size": size}

        def tell(counts: Mapping[str, Any]) -> None:
            told(Progress(spooled.size, counts["bytes"], counts["entries"]))

        with unnamed_file(self._directory) as fd:
            with disk_full_as_domain_error(self._directory / "content"):
                os.ftruncate(fd, size)
            with job_failures("unpack the archive"), full_disk_as_enospc(self._directory):
                values = {**place, "inodes": inodes}
                await self._host.launcher.run_job("format_ext4", values, [fd], timeout_s=FORMAT_TIMEOUT_S)
                os.lseek(spool, 0, os.SEEK_SET)
                counts = await self._jails.run("unpack", place, [fd, spool], tell)
            return os.dup(fd), counts

    async def _packed(self, content: int, asked: WantedPacked) -> tuple[int, Filesystem]:
        """A file with the filesystem and nothing else, of whole MiB."""
        kind, used = asked.filesystem.type, os.fstat(content).st_blocks * 512
        size = aligned(used + used // _SHARE + _MORE_ROOM)
        identity = str(uuid.uuid4()) if kind == "erofs" else ""
        algorithm, level = parted(asked.filesystem.compression)
        values = {"offset": 0, "size": size, "type": kind, "algorithm": algorithm, "level": level, "uuid": identity}
        with unnamed_file(self._directory) as fd:
            with disk_full_as_domain_error(self._directory / "volume"):
                os.ftruncate(fd, size)
            with job_failures(f"make {kind}"), full_disk_as_enospc(self._directory), packing_failures(asked):
                await self._jails.run("pack", values, [fd, content])
            contents = await to_end(probe, fd, 0, size)
            used = size if contents is None or contents.size_bytes is None else aligned(contents.size_bytes)
            os.ftruncate(fd, used)
            return os.dup(fd), Filesystem(asked.filesystem.label, kind, used, identity, asked.filesystem.compression)

    async def _recorded(self, asked: WantedPacked, filesystem: Filesystem, packed: int) -> VolumeRow:
        size = least_disk_bytes([filesystem.size_bytes])

        async def make(row: VolumeRow | NewVolume) -> None:
            gpt = plan([Place(filesystem.label, filesystem.size_bytes)], size)
            await to_end(compose, self._host.volume_files.path(row), gpt, (filesystem,), [packed])

        return await self._volumes.create_of(asked.wanted, size, (filesystem,), make)


@contextmanager
def packing_failures(asked: WantedPacked) -> Iterator[None]:
    """What a packing tool does not do, in words for the caller."""
    try:
        yield
    except ChildFailed as failure:
        if failure.errno != errno.ENOTSUP:
            raise
        how = f" with {asked.filesystem.compression}" if asked.filesystem.compression else ""
        raise FailedPrecondition(
            f"The {asked.filesystem.type} could not be made{how}.",
            details=f"{failure.target}.",
            resolution="Ask for a compression that the tool on the service's host knows: a newer one knows more.",
            reason="NOT_PACKED",
        ) from failure
