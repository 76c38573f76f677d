"""The verb import: an image is received into a file without a name, looked at, and becomes a volume.

    header    may its sender, is there room, is the name free, as far as that is known -> from where on
    pieces    each in its place, checked -> the file; zstd is unpacked on the way
    trailer   size and digest right -> what it becomes -> the volume is recorded, with its file

    trusted, by the host     the volume's file, byte by byte: it is mounted
    as it is                 the same, `foreign`: no kernel mounts it (`sysproc.volume_refusals.check_trusted`)
    else                     what is in it, copied into filesystems of ours (`sysproc.volume_remake`); or refused

Broken off, it may go on for ten minutes (`sysproc.held_files`); what was copied is copied again then. Until all is
there nobody sees a volume, and after a crash there is nothing. What an image holds: `sysproc.volume_contents`.
"""

import hashlib
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sysproc.errors import FailedPrecondition, InvalidArgument, SysprocError
from sysproc.failpoints import failpoint
from sysproc.held_files import Held, HeldFiles, Key
from sysproc.host import Host
from sysproc.ids import new_volume_id
from sysproc.sparse import write_sparse
from sysproc.storage import volumes as recorded
from sysproc.storage.quotas import Asker
from sysproc.storage.requests import RequestKey
from sysproc.storage.volumes import FOREIGN, MADE, TRUSTED, Filesystem, NewVolume, VolumeRow
from sysproc.storage.vsf.clone import disk_full_as_domain_error, give_name, sync_directory, unnamed_file
from sysproc.storage.vsf.pieces import digest_of
from sysproc.to_end import outlasted, to_end
from sysproc.unzstd import Unzstd
from sysproc.volume_contents import contents_of
from sysproc.volume_remake import Progress, remade
from sysproc.volumes import Make, Volumes

MOST_BYTES = 2**44
UNFINISHED = "TRANSFER_UNFINISHED"


@dataclass(frozen=True)
class WantedImport:
    """An import that somebody asks for. asked_by: the caller's container; owner_id: whose it will be; None: the host.

    as_is: it is kept byte by byte, and mounted by nobody; size_bytes: of the image, 0: not known.
    """

    asked_by: int | None
    owner_id: int | None
    name: str
    on_destroy: str
    overcommit: bool
    trusted: bool
    as_is: bool
    request_id: str
    zstd: bool
    size_bytes: int

    @property
    def key(self) -> Key:
        """By what it is held."""
        return self.asked_by, self.request_id


@dataclass(frozen=True)
class ReceivedPiece:
    """As `Piece` in the API; checked already is that it has a digest of the right length."""

    offset: int
    size: int
    data: bytes
    sha256: bytes


@dataclass(frozen=True)
class Received:
    """What an import has become. digest: of its image; skipped: device nodes and attributes that were left out."""

    volume: VolumeRow
    digest: bytes
    skipped: int = 0


@dataclass
class Half:
    """How far an import is. next_offset: of the next piece; size: of the image so far."""

    wanted: WantedImport
    unzstd: Unzstd | None
    next_offset: int = 0
    size: int = 0


class VolumeImports:
    """One instance, used from one event loop."""

    def __init__(self, host: Host, volumes: Volumes) -> None:
        self._host, self._volumes, self._jails, self._database = host, volumes, host.jails, host.database
        self._held: HeldFiles[Half] = host.imports

    async def begin(self, wanted: WantedImport) -> None:
        """Raise what can be known before anything was sent: NotFound, AlreadyExists, LimitExceeded, …"""
        await self._volumes.settle_what_is_left()
        if not wanted.overcommit:
            await to_end(self._host.state_dir.check_free, wanted.size_bytes)
        await self._check(wanted, max(wanted.size_bytes, 1))

    async def _check(self, wanted: WantedImport, size_bytes: int) -> None:
        new = self._new(wanted, size_bytes, (), FOREIGN)
        await self._database.read(lambda c: recorded.check_volume(c, new, self._asker(wanted)))

    @asynccontextmanager
    async def opened(self, wanted: WantedImport) -> AsyncIterator[Held[Half]]:
        """What has been received, for one call; kept for another if this one is broken off, and over if refused."""
        held = await self._held.take(wanted.key)
        if held is None:
            self._held.check_room(wanted.asked_by)
            with unnamed_file(self._host.state_dir.volumes) as fd:
                held = Held(os.dup(fd), wanted.owner_id, Half(wanted, Unzstd() if wanted.zstd else None))
            self._held.add(wanted.key, held)
        if held.state.wanted != wanted:
            self._held.put_back(wanted.key)
            raise another_import()
        try:
            yield held
        except SysprocError as failure:
            if failure.reason != UNFINISHED:
                self._held.end(wanted.key)
            raise
        finally:
            self._held.put_back(wanted.key)
        self._held.end(wanted.key)

    def abandon(self, key: Key) -> None:
        """It does not go on."""
        self._held.drop(key)

    async def receive(self, held: Held[Half], piece: ReceivedPiece) -> None:
        """The next piece. Raises InvalidArgument, ResourceExhausted."""
        with disk_full_as_domain_error(self._host.state_dir.volumes / "import"):
            await to_end(write_piece, held.fd, held.state, piece)

    async def finish(
        self, held: Held[Half], size_bytes: int, digest: bytes, request: RequestKey | None, progress: Progress
    ) -> Received:
        """All is there. size_bytes 0, digest empty: not known.

        Raises InvalidArgument (damaged, or nothing that is read), LimitExceeded, ResourceExhausted, …
        """
        wanted = held.state.wanted
        size = whole_size(held.state, size_bytes)
        await to_end(os.ftruncate, held.fd, size)
        found = await to_end(digest_of, held.fd, size)
        if digest not in (b"", found):
            raise bad_transfer("has the digest that it says")
        with volume_counts(held):
            received = await self._made(held, size, found, request, progress)
        # A client may hang up as soon as it knows: there is nothing to go on with.
        self._held.drop(wanted.key)
        return received

    async def _made(
        self, held: Held[Half], size: int, digest: bytes, request: RequestKey | None, progress: Progress
    ) -> Received:
        wanted = held.state.wanted
        if wanted.trusted or wanted.as_is:
            return Received(await self._kept(held, size, request), digest)
        row, skipped = await self._copied(held, request, progress)
        return Received(row, digest, skipped)

    async def _kept(self, held: Held[Half], size: int, request: RequestKey | None) -> VolumeRow:
        """What was received becomes the file of the volume."""
        wanted = held.state.wanted
        origin = TRUSTED if wanted.trusted else FOREIGN
        contents = await to_end(contents_of, held.fd, to_be_opened=wanted.trusted)
        new = replace(self._new(wanted, size, contents.filesystems, origin), encryption=contents.encryption)
        failpoint("volumes.import.after_look")

        async def put(row: VolumeRow) -> None:
            await to_end(put_in_place, held.fd, self._host.volume_files.path(row))

        return await self._added(wanted, new, put, request)

    async def _copied(self, held: Held[Half], request: RequestKey | None, progress: Progress) -> tuple[VolumeRow, int]:
        """What is in it becomes a volume of ours."""
        wanted, directory = held.state.wanted, self._host.state_dir.volumes

        async def room(size_bytes: int) -> None:
            await self._check(wanted, size_bytes)

        async with remade(self._jails, held.fd, directory, progress, room) as made:
            failpoint("volumes.import.after_copy")
            new = self._new(wanted, made.size_bytes, made.filesystems, MADE)

            async def put(row: VolumeRow) -> None:
                await to_end(made.write, self._host.volume_files.path(row))

            return await self._added(wanted, new, put, request), made.skipped

    async def _added(self, wanted: WantedImport, new: NewVolume, put: Make, request: RequestKey | None) -> VolumeRow:
        """Once it is being recorded it goes on to its end; a caller that goes away takes the files only then."""
        adding = self._volumes.to_its_end(lambda: self._volumes.add(new, self._asker(wanted), put, request))
        return await outlasted(adding)

    def _new(self, wanted: WantedImport, size: int, filesystems: tuple[Filesystem, ...], origin: str) -> NewVolume:
        return NewVolume(
            id=new_volume_id(),
            owner_id=wanted.owner_id,
            name=wanted.name,
            size_bytes=size,
            filesystems=filesystems,
            on_destroy=wanted.on_destroy,
            overcommit=wanted.overcommit,
            origin=origin,
        )

    def _asker(self, wanted: WantedImport) -> Asker:
        return Asker(wanted.asked_by, self._host.output_bytes)


def write_piece(fd: int, half: Half, piece: ReceivedPiece) -> None:
    """Check it, and write what it stands for. Raises InvalidArgument. Blocks."""
    if piece.offset != half.next_offset:
        raise bad_transfer(f"goes on at {half.next_offset}: not at {piece.offset}")
    if hashlib.sha256(piece.data).digest() != piece.sha256:
        raise bad_transfer(f"arrives as it was sent: the piece at {piece.offset} did not")
    if half.unzstd is not None:
        for block in half.unzstd.unpacked(piece.data):
            append(fd, half, memoryview(block), len(block))
    else:
        append(fd, half, memoryview(piece.data), piece.size)
    half.next_offset += piece.size


def append(fd: int, half: Half, data: memoryview, size: int) -> None:
    """The next bytes of the image; none of data: zeros."""
    most = half.wanted.size_bytes or MOST_BYTES
    if half.size + size > most:
        raise bad_transfer(f"has {most} bytes at most")
    write_sparse(fd, data, half.size)
    half.size += size


def whole_size(half: Half, size_bytes: int) -> int:
    """The size of the image. Raises InvalidArgument if not all of it has come."""
    if half.unzstd is not None and not half.unzstd.whole:
        raise bad_transfer("ends where its last frame of zstd ends")
    said = {one for one in (half.wanted.size_bytes, size_bytes) if one}
    if said - {half.size} or not half.size:
        raise bad_transfer(f"has as many bytes as it says, and some: {half.size} have come")
    return half.size


@contextmanager
def volume_counts(held: Held[Half]) -> Iterator[None]:
    """What was received does not count beside the volume that it becomes; unless it does not become one."""
    owner_id, held.owner_id = held.owner_id, None
    try:
        yield
    except BaseException:
        held.owner_id = owner_id
        raise


def put_in_place(fd: int, target: Path) -> None:
    """An unnamed file gets its name, once all of it is on the disk. Blocks."""
    os.fdatasync(fd)
    failpoint("volumes.import.before_link")
    give_name(fd, target)
    sync_directory(target.parent)


def bad_transfer(rule: str) -> InvalidArgument:
    """The error for an import that is not as it has to be."""
    return InvalidArgument(
        f"An import {rule}.",
        resolution="See ImportVolumeRequest: header, pieces in order and without a gap, trailer.",
        reason="BAD_TRANSFER",
    )


def unfinished() -> FailedPrecondition:
    """Its sender has gone, or has forgotten the trailer: it may go on."""
    return FailedPrecondition(
        "The import has ended without a trailer.",
        resolution="Go on with it, with the same header, within ten minutes.",
        reason=UNFINISHED,
    )


def another_import() -> InvalidArgument:
    """The id stands for another one."""
    return InvalidArgument(
        "An import with this request_id was begun with another header.",
        resolution="Begin each import with a fresh UUID; go on with it only with the same header.",
        reason="REQUEST_ID_REUSED",
    )


def is_transfer_id(text: str) -> bool:
    """Whether it is a UUID as text."""
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False
