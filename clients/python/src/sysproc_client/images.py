"""Images: imported as a stream of a tar, made here from a folder if need be.

The service never sees a path of this machine; it gets bytes, and their digest at the end.
"""

import builtins
import hashlib
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from nightos.sysproc.v1 import image_service_pb2 as pb
from sysproc_client._core.values import bad, text
from sysproc_client.connection import Connection

if TYPE_CHECKING:
    from nightos.sysproc.v1.image_service_pb2_grpc import ImageServiceStub

CHUNK = 512 * 1024
PAGE = 1000

Progress = Callable[[pb.ImportImageResponse.Progress], None]


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
        """Import a folder, a tar file (plain or gzip), or an open one. Raises SysprocError, OSError."""
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
        self, name: str, stream: BinaryIO, size: int, replace: bool, progress: Progress
    ) -> pb.ImportImageResponse.Imported:
        header = pb.ImportImageRequest.Header(name=text(name, "image"), replace=bool(replace), size_bytes=size)
        requests = self._requests(header, stream)
        for response in self._connection.stream(self._stub.ImportImage(requests)):
            if response.WhichOneof("update") == "imported":
                return response.imported
            progress(response.progress)
        raise ConnectionError("the service ended the import without a result")

    def _requests(self, header: pb.ImportImageRequest.Header, stream: BinaryIO) -> Iterator[pb.ImportImageRequest]:
        digest = hashlib.sha256()
        yield pb.ImportImageRequest(header=header)
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            yield pb.ImportImageRequest(data=chunk)
        yield pb.ImportImageRequest(trailer=pb.ImportImageRequest.Trailer(digest=digest.digest()))


class tar_of:
    """A folder as a stream of a tar: owners by number, extended attributes kept, names in order.

    A thread writes the tar into a pipe. What goes wrong in it is raised when the stream is left.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._failure = folder, None

    def __enter__(self) -> BinaryIO:
        reader, writer = os.pipe()
        self._reader = os.fdopen(reader, "rb")
        self._thread = threading.Thread(target=self._write, args=(writer,), daemon=True)
        self._thread.start()
        return self._reader

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._reader.close()
        self._thread.join()
        if self._failure is not None and kind is None:
            raise self._failure

    _failure: BaseException | None

    def _write(self, writer: int) -> None:
        try:
            with (
                os.fdopen(writer, "wb") as pipe,
                tarfile.open(fileobj=pipe, mode="w|", format=tarfile.PAX_FORMAT) as archive,
            ):
                add_below(archive, self._folder, "")
        except BrokenPipeError:
            return  # the other side has said why
        except Exception as failure:
            self._failure = failure


def add_below(archive: tarfile.TarFile, folder: Path, prefix: str) -> None:
    """Everything in a folder, in order; sockets are left out, as every archiver does."""
    for path in sorted(folder.iterdir()):
        if path.is_socket():
            continue
        entry = archive.gettarinfo(path, prefix + path.name)
        entry.uname = entry.gname = ""
        entry.pax_headers = attributes(path)
        if entry.isreg():
            with path.open("rb") as file:
                archive.addfile(entry, file)
        else:
            archive.addfile(entry)
        if entry.isdir():
            add_below(archive, path, f"{prefix}{path.name}/")


def attributes(path: Path) -> dict[str, str]:
    """The extended attributes as tar has them (star(1), SCHILY.xattr)."""
    return {
        f"SCHILY.xattr.{name}": os.getxattr(path, name, follow_symlinks=False).decode("utf-8", "surrogateescape")
        for name in os.listxattr(path, follow_symlinks=False)
    }
