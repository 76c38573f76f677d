"""Images: imported as a stream of a tar, made here from a folder if need be.

The service never sees a path of this machine; it gets bytes, and their digest at the end.
"""

import builtins
import errno
import hashlib
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from io import BufferedReader, FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from nightos.sysproc.v1 import image_service_pb2 as pb
from sysproc_client._core.errors import SysprocError
from sysproc_client._core.sparse_tar import SparseData, has_holes, make_sparse
from sysproc_client._core.values import bad, text
from sysproc_client.connection import Connection

if TYPE_CHECKING:
    from nightos.sysproc.v1.image_service_pb2_grpc import ImageServiceStub

CHUNK = 512 * 1024
PAGE = 1000
NS = 10**9

Progress = Callable[[pb.ImportImageResponse.Progress], None]


class Readable(Protocol):
    """Bytes that are read once, from the beginning to the end."""

    def read(self, size: int, /) -> bytes:
        """So many bytes; none at the end."""
        ...


class Images:
    """The images of a service."""

    def __init__(self, connection: Connection, stub: "ImageServiceStub") -> None:
        self._connection, self._stub = connection, stub

    def list(self) -> "list[pb.Image]":
        """All images, by name."""
        request = pb.ListImagesRequest(page_size=PAGE)
        found: builtins.list[pb.Image] = []
        while True:
            page = self._connection.call(self._stub.ListImages, request)
            found += page.images
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    def get(self, name: str) -> pb.GetImageResponse:
        """One image, and the containers that were made from it. Raises NotFound."""
        request = pb.GetImageRequest(name=text(name, "image"))
        return self._connection.call(self._stub.GetImage, request)

    def delete(self, name: str) -> None:
        """Forget an image. Raises NotFound, FailedPrecondition (containers were made from it)."""
        request = pb.DeleteImageRequest(name=text(name, "image"))
        self._connection.call(self._stub.DeleteImage, request, repeatable=False)

    def import_(
        self,
        name: str,
        source: str | os.PathLike[str] | BinaryIO,
        *,
        replace: bool = False,
        progress: Progress = lambda _: None,
    ) -> pb.ImportImageResponse.Imported:
        """Import a folder, a tar file (plain, gzip, xz, zstd), or an open one. Raises SysprocError, OSError."""
        if not isinstance(source, (str, os.PathLike)):
            if not hasattr(source, "read"):
                raise bad(source, "source of an image", "Give a path, or an open file.")
            return self._send(name, source, 0, replace, progress)
        path = Path(source)
        if path.is_dir():
            with tar_of(path) as stream:
                return self._send(name, stream, 0, replace, progress)
        with path.open("rb") as file:
            return self._send(name, file, path.stat().st_size, replace, progress)

    def _send(
        self, name: str, stream: Readable, size: int, replace: bool, progress: Progress
    ) -> pb.ImportImageResponse.Imported:
        header = pb.ImportImageRequest.Header(name=text(name, "image"), replace=bool(replace), size_bytes=size)
        upload = Upload(header, stream)
        call = self._connection.begin(self._stub.ImportImage, upload.requests())
        upload.cancel_with(call.cancel)
        try:
            for response in self._connection.stream(call):
                if response.WhichOneof("update") == "imported":
                    imported: pb.ImportImageResponse.Imported = response.imported
                    return imported
                progress(response.progress)
        except SysprocError as failure:
            raise upload.failure or failure from failure.__cause__
        finally:
            call.cancel()
        raise ConnectionError("the service ended the import without a result")


class UploadedBytes:
    """Bytes that are read when gRPC asks for them, in a thread of its own.

    If reading fails, the call is cancelled: a stream that ended there would be a shorter archive. What went wrong is
    `failure` then.
    """

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._cancel: Future[Callable[[], object]] = Future()
        self.failure: BaseException | None = None

    def cancel_with(self, cancel: Callable[[], object]) -> None:
        """How the call is cancelled; there is none yet when the requests are handed over."""
        self._cancel.set_result(cancel)

    def _read(self) -> bytes:
        try:
            return bytes(memoryview(self._stream.read(CHUNK)))  # TypeError for a file of text
        except BaseException as failure:
            self.failure = failure
            cancel = self._cancel.result()
            cancel()
            return b""


class Upload(UploadedBytes):
    """The requests of one import: the header, the bytes, their digest."""

    def __init__(self, header: pb.ImportImageRequest.Header, stream: Readable) -> None:
        super().__init__(stream)
        self._header = header

    def requests(self) -> Iterator[pb.ImportImageRequest]:
        """In their order."""
        digest = hashlib.sha256()
        yield pb.ImportImageRequest(header=self._header)
        while chunk := self._read():
            digest.update(chunk)
            yield pb.ImportImageRequest(data=chunk)
        if self.failure is None:
            yield pb.ImportImageRequest(trailer=pb.ImportImageRequest.Trailer(digest=digest.digest()))


class tar_of:
    """A folder as a stream of a tar: owners by number, extended attributes kept, parents before what is in them.

    A thread writes the tar into a pipe. What goes wrong in it is raised by the read that meets the end.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._failure = folder, None

    _failure: BaseException | None

    def __enter__(self) -> "tar_of":
        reader, writer = os.pipe()
        self._reader = os.fdopen(reader, "rb")
        self._thread = threading.Thread(target=self._write, args=(writer,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        self._thread.join()

    def read(self, size: int) -> bytes:
        """So many bytes of the tar, fewer at its end. Raises OSError if the folder cannot be read whole."""
        data = self._reader.read(size)
        if len(data) < size:
            self._thread.join()
            if self._failure is not None:
                raise self._failure
        return data

    def _write(self, writer: int) -> None:
        try:
            with (
                os.fdopen(writer, "wb") as pipe,
                tarfile.open(fileobj=pipe, mode="w|", format=tarfile.PAX_FORMAT) as archive,
            ):
                add_all(archive, self._folder)
        except BrokenPipeError:
            return  # the other side has said why
        except Exception as failure:
            self._failure = failure


def add_all(archive: tarfile.TarFile, top: Path) -> None:
    """Everything in a folder, however deep; sockets are left out, as every archiver does."""
    waiting = [(top, "")]
    while waiting:
        folder, prefix = waiting.pop()
        for path in sorted(folder.iterdir()):
            if path.is_socket():
                continue
            if add(archive, path, prefix + path.name).isdir():
                waiting.append((path, f"{prefix}{path.name}/"))
            archive.getmembers().clear()  # what it has written, for a table that a stream does not have


def add(archive: tarfile.TarFile, path: Path, name: str) -> tarfile.TarInfo:
    """One file, directory or whatever it is; a link is not followed."""
    entry = archive.gettarinfo(path, name)
    entry.uname = entry.gname = ""
    entry.pax_headers = {**attributes(path), "mtime": seconds(path.lstat().st_mtime_ns)}
    if not entry.isreg():
        archive.addfile(entry)
        return entry
    with path.open("rb", buffering=0) as file:
        try:
            archive.addfile(entry, stored(entry, file))
        except OSError as failure:
            if failure.errno is not None:
                raise
            raise OSError(errno.EIO, "it became shorter while it was read", str(path)) from None
    return entry


def stored(entry: tarfile.TarInfo, file: FileIO) -> Any:
    """What is read of it: all, or what is no hole."""
    if not has_holes(file.fileno()):
        return BufferedReader(file)
    data = SparseData(file.fileno(), entry.size)
    make_sparse(entry, data)
    return data


def seconds(moment_ns: int) -> str:
    """As pax(1) has a time: whole, where a float is not."""
    whole, fraction = divmod(abs(moment_ns), NS)
    return f"{'-' if moment_ns < 0 else ''}{whole}.{fraction:09}"


def attributes(path: Path) -> dict[str, str]:
    """The extended attributes as tar has them (star(1), SCHILY.xattr)."""
    return {
        f"SCHILY.xattr.{name}": os.getxattr(path, name, follow_symlinks=False).decode("utf-8", "surrogateescape")
        for name in os.listxattr(path, follow_symlinks=False)
    }
