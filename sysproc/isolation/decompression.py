"""A tar without its compression, whichever it is: gzip (RFC 1952), xz, zstd (RFC 8878), or none. By its first bytes.

Each may be several streams one after the other, as their own programs read them. What is broken, or ends too early, is
an OSError(EBADMSG). What is in it is read by `sysproc.isolation.tar_reader`; how large it will be is found while it
comes in (`sysproc.archive_size`).
"""

import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from sysproc.errors import InvalidArgument
from sysproc.isolation.tar_headers import broken
from sysproc.unzstd import SLICE_BYTES, Unzstd

GZIP_MAGIC, XZ_MAGIC, ZSTD_MAGIC = b"\x1f\x8b", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"
_BUFFER_BYTES = 1 << 20


class ZstdStream(io.RawIOBase):
    """What a file of zstd frames becomes. EOFError: it ends within one."""

    def __init__(self, packed: IO[bytes]) -> None:
        self._packed, self._frames = packed, Unzstd()
        self._blocks: Iterator[bytes] = iter(())
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        """It is read, and nothing else."""
        return True

    def readinto(self, buffer: Any) -> int:
        """See io.RawIOBase."""
        while not self._ready:
            self._ready = memoryview(next(self._blocks, b""))
            if not self._ready and not self._more():
                return 0
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

    def _more(self) -> bool:
        """The next bytes of the file; False at its end."""
        packed = self._packed.read(SLICE_BYTES)
        if not packed and not self._frames.whole:
            raise EOFError("it ends within a frame of zstd")
        self._blocks = self._frames.unpacked(packed)
        return bool(packed)


_READERS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    GZIP_MAGIC: lambda packed: gzip.GzipFile(fileobj=packed),
    XZ_MAGIC: lambda packed: lzma.LZMAFile(packed, format=lzma.FORMAT_XZ),  # noqa: SIM115 - `packed` is what is closed
    ZSTD_MAGIC: lambda packed: io.BufferedReader(ZstdStream(packed), _BUFFER_BYTES),
}


@contextmanager
def decompressed(fd: int) -> Iterator[IO[bytes]]:
    """The archive without its compression; the fd is closed at the end."""
    with open(fd, "rb", buffering=_BUFFER_BYTES) as packed, broken_as_oserror():
        magic = packed.peek(len(XZ_MAGIC)) if isinstance(packed, io.BufferedReader) else b""
        reader = next((reader for begins, reader in _READERS.items() if magic.startswith(begins)), None)
        yield reader(packed) if reader else packed


@contextmanager
def broken_as_oserror() -> Iterator[None]:
    """What the libraries raise for input that is none or ends too early, as one errno."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as why:
        raise broken(str(why)) from None
    except InvalidArgument as why:
        raise broken(why.details) from None
