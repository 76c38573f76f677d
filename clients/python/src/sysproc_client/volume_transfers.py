"""Volumes to files and from files: disk images as they are, or packed by zstd, which is the service's work.

    data.export_to("data.img")                      # a sparse disk image
    data.export_to("data.img.zst")                  # zstd -d makes the same of it
    client.volumes.import_from("copy", "data.img.zst", trusted=True)

A call that was lost is made again, and goes on where it was. What pieces are is in
`sysproc_client._core.image_pieces`; volumes themselves in `sysproc_client.volumes`.
"""

import collections
import hashlib
import os
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

import grpc

from nightos.sysproc.v1 import volume_pb2
from nightos.sysproc.v1 import volume_service_pb2 as service
from sysproc_client._core.errors import InternalError, SysprocError
from sysproc_client._core.image_pieces import (
    PIECE_BYTES,
    ZEROS,
    ZSTD_MAGIC,
    Digests,
    Piece,
    of_file,
    of_stream,
    read_whole,
    write_sparse,
)
from sysproc_client._core.values import bad
from sysproc_client.connection import Connection

if TYPE_CHECKING:
    from nightos.sysproc.v1.volume_service_pb2_grpc import VolumeServiceStub

# How much of the image is done, and its size; 0: not known. All sent, then how much of it has been copied there.
Progress = Callable[[int, int], object]
PathLike = str | os.PathLike[str]


class Readable(Protocol):
    """Bytes that are read once, from the beginning to the end."""

    def read(self, size: int, /) -> bytes:
        """So many bytes; none at the end."""
        ...


def abandon(connection: Connection, stub: "VolumeServiceStub", transfer_id: str) -> None:
    """Let the service forget what it keeps; it does so by itself in ten minutes."""
    with suppress(SysprocError):
        connection.call(stub.AbandonTransfer, service.AbandonTransferRequest(transfer_id=transfer_id))


# -- export


@contextmanager
def fresh_file(path: Path, *, replace: bool) -> Iterator[BinaryIO]:
    """A file that gets its name when it is whole. Raises FileExistsError, OSError; nothing is left then."""
    if path.exists() and not replace:
        raise FileExistsError(17, "there is one already", str(path))
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "wb", buffering=0) as file:
            yield file
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.rename(name, path)
    except BaseException:
        os.unlink(name)
        raise


class Export:
    """One export, over as many calls as it takes."""

    def __init__(self, ref: volume_pb2.VolumeRef, *, zstd: bool, progress: Progress) -> None:
        encoding = service.TRANSFER_ENCODING_ZSTD if zstd else service.TRANSFER_ENCODING_RAW
        self.request = service.ExportVolumeRequest(volume=ref, export_id=str(uuid.uuid4()), encoding=encoding)
        self._zstd, self._progress = zstd, progress
        self._digests, self.size = Digests(), 0

    def run(self, connection: Connection, stub: "VolumeServiceStub", write: Callable[[Piece], object]) -> bytes:
        """All of it, piece by piece; the digest of the image. Raises SysprocError."""
        try:
            for answer in connection.repeated(lambda: self._call(stub), connection.attempts()):
                kind = answer.WhichOneof("part")
                if kind == "beginning":
                    self.size = answer.beginning.size_bytes
                elif kind == "piece":
                    self.receive(answer.piece, write)
                    self.told()
                else:
                    return self.checked(answer.done.digest)
        except BaseException:
            abandon(connection, stub, self.request.export_id)
            raise
        raise damaged("it has ended too early")

    def _call(self, stub: "VolumeServiceStub") -> Iterator[service.ExportVolumeResponse]:
        call = stub.ExportVolume(self.request)
        try:
            for answer in call:
                if answer.WhichOneof("part") == "done":
                    with suppress(grpc.RpcError):  # all has come
                        collections.deque(call, maxlen=0)  # who hangs up before the end is expected to come back
                yield answer
        finally:
            call.cancel()

    def receive(self, piece: service.Piece, write: Callable[[Piece], object]) -> None:
        """The next piece, which is written. Raises InternalError, OSError."""
        if piece.offset != self.request.offset or hashlib.sha256(piece.data).digest() != piece.sha256:
            raise damaged(f"the piece at {piece.offset} is not what was sent")
        received = Piece(piece.offset, piece.size_bytes, piece.data)
        self._digests.add(received)
        write(received)
        self.request.offset = piece.offset + piece.size_bytes

    def told(self) -> None:
        """How far it is."""
        self._progress(self.request.offset, self.size)

    def checked(self, digest: bytes) -> bytes:
        """The digest that the service says, if all of it has come and is the same. Raises InternalError."""
        if self.request.offset != self.size:
            raise damaged("not all of it has come")
        if not self._zstd and self._digests.of_image() != digest:
            raise damaged("it is another image than the service has read")
        return digest


def export_to(
    connection: Connection,
    stub: "VolumeServiceStub",
    ref: volume_pb2.VolumeRef,
    target: PathLike | BinaryIO,
    *,
    zstd: bool | None,
    replace: bool,
    progress: Progress,
) -> bytes:
    """See `Volume.export_to`."""
    if not isinstance(target, (str, os.PathLike)):
        if not hasattr(target, "write"):
            raise bad(target, "target of an export", "Give a path, or a file that is open for writing.")
        stream = target
        export = Export(ref, zstd=bool(zstd), progress=progress)
        return export.run(connection, stub, lambda piece: write_all(stream, piece))
    path = Path(target)
    packed = path.suffix == ".zst" if zstd is None else zstd
    with fresh_file(path, replace=replace) as file:
        export = Export(ref, zstd=packed, progress=progress)
        write = write_all if packed else write_sparse
        digest = export.run(connection, stub, lambda piece: write(file, piece))
        if not packed:
            file.truncate(export.request.offset)
        return digest


def write_all(stream: BinaryIO, piece: Piece) -> None:
    """Into what cannot be sought: zeros are written."""
    if piece.data:
        written(stream, memoryview(piece.data))
        return
    left = piece.size
    while left:
        block = ZEROS[: min(left, PIECE_BYTES)]
        written(stream, block)
        left -= len(block)


def written(stream: BinaryIO, data: memoryview) -> None:
    """All of it: a raw file may take less at once."""
    while data:
        data = data[stream.write(data) :]


def damaged(why: str) -> InternalError:
    """The error for an export that did not arrive as it was sent."""
    return InternalError(f"The export has been damaged on its way: {why}.", resolution="Export it again.")


# -- import


@dataclass(frozen=True)
class Source:
    """What is imported. size: of the image, 0 if it is not known; pieces: from an offset on."""

    zstd: bool
    size: int
    pieces: Callable[[int], Iterator[Piece]]


def source_of_file(file: BinaryIO) -> Source:
    """A regular file, which is read from where the service wants it."""
    fd, size = file.fileno(), os.fstat(file.fileno()).st_size
    if os.pread(fd, len(ZSTD_MAGIC), 0) == ZSTD_MAGIC:

        def packed(offset: int) -> Iterator[Piece]:
            file.seek(offset)
            return (Piece(offset + one.offset, one.size, one.data) for one in of_stream(file.read, sparse=False))

        return Source(True, 0, packed)
    return Source(False, size, lambda offset: of_file(fd, size, offset))


def source_of_stream(stream: Readable) -> Source:
    """What can be read once."""
    beginning = read_whole(stream.read, len(ZSTD_MAGIC))
    zstd, state = beginning == ZSTD_MAGIC, {"beginning": beginning}

    def read(size: int) -> bytes:
        return state.pop("beginning", b"") or stream.read(size)

    found = of_stream(read, sparse=not zstd)

    def pieces(offset: int) -> Iterator[Piece]:
        for piece in found:
            if piece.offset != offset:
                raise ConnectionError("the connection was lost, and what was sent cannot be read again")
            yield piece
            offset += piece.size

    return Source(zstd, 0, pieces)


class Import:
    """One import, over as many calls as it takes."""

    def __init__(self, header: service.ImportVolumeRequest.Header, source: Source, progress: Progress) -> None:
        self._header, self._source, self._progress = header, source, progress
        self._digests = Digests()
        self._ready: Future[int] = Future()
        self.failure: BaseException | None = None

    def run(self, connection: Connection, stub: "VolumeServiceStub") -> service.ImportVolumeResponse.Imported:
        """All of it. Raises SysprocError, OSError."""
        try:
            for answer in connection.repeated(lambda: self._call(stub), connection.attempts()):
                kind = answer.WhichOneof("update")
                if kind == "imported":
                    return answer.imported
                if kind == "ready":
                    self._ready.set_result(answer.ready.offset)
                else:
                    self._progress(answer.progress.copied_bytes, 0)
        except BaseException as failure:
            self._ready.cancel()
            abandon(connection, stub, self._header.request_id)
            if self.failure is not None and isinstance(failure, SysprocError):
                raise self.failure from None
            raise
        raise ConnectionError("the service ended the import without a result")

    def _call(self, stub: "VolumeServiceStub") -> Iterator[service.ImportVolumeResponse]:
        self._ready.cancel()
        self._ready = Future()
        call = stub.ImportVolume(self._requests(self._ready))
        try:
            yield from call
        finally:
            call.cancel()

    def _requests(self, ready: "Future[int]") -> Iterator[service.ImportVolumeRequest]:
        """In a thread of gRPC's. If reading fails, no trailer is sent, and the service says that it is missing."""
        yield service.ImportVolumeRequest(header=self._header)
        try:
            for piece in self._source.pieces(ready.result()):
                digest = self._digests.add(piece)
                sent = service.Piece(offset=piece.offset, size_bytes=piece.size, data=piece.data, sha256=digest)
                yield service.ImportVolumeRequest(piece=sent)
                self._progress(piece.offset + piece.size, self._source.size)
        except CancelledError:
            return  # the call was answered before anything was asked for
        except Exception as failure:
            self.failure = failure
            return
        trailer = service.ImportVolumeRequest.Trailer(digest=b"" if self._source.zstd else self._digests.of_image())
        yield service.ImportVolumeRequest(trailer=trailer)


def import_from(
    connection: Connection,
    stub: "VolumeServiceStub",
    header: service.ImportVolumeRequest.Header,
    source: "PathLike | Readable",
    progress: Progress,
) -> service.ImportVolumeResponse.Imported:
    """See `Volumes.import_from`."""

    def send(found: Source) -> service.ImportVolumeResponse.Imported:
        packed = service.TRANSFER_ENCODING_ZSTD if found.zstd else service.TRANSFER_ENCODING_RAW
        header.encoding, header.size_bytes = packed, found.size
        return Import(header, found, progress).run(connection, stub)

    if not isinstance(source, (str, os.PathLike)):
        if not hasattr(source, "read"):
            raise bad(source, "source of a volume", "Give a path, or an open file.")
        return send(source_of_stream(source))
    with Path(source).open("rb", buffering=0) as file:
        regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        return send(source_of_file(file) if regular else source_of_stream(file))
