"""A file with holes as an entry of a tar: GNU tar's sparse format 1.0, a map in front of the parts that have data.

    2\\n 0\\n 4096\\n 1048576\\n 0\\n   zeros up to 512      how many parts; offset and length of each; then their data

Folders as a whole are written by `sysproc_client.images`.
"""

import errno
import os
import posixpath
import tarfile
from collections.abc import Iterator

BLOCK = 512
Part = tuple[int, int]


def has_holes(fd: int) -> bool:
    """Whether it takes less than its size on the disk."""
    found = os.fstat(fd)
    return found.st_blocks * BLOCK < found.st_size


def parts_of(fd: int, size: int) -> Iterator[Part]:
    """Offset and length of what has data. Raises OSError without an errno if the file has become shorter."""
    at = 0
    while at < size:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
            end = min(size, os.lseek(fd, at, os.SEEK_HOLE))
        except OSError as failure:
            if failure.errno != errno.ENXIO:
                raise
            if os.fstat(fd).st_size < size:
                raise OSError("the file became shorter while it was read") from None
            break
        if at < size:
            yield at, end - at
        at = end


class SparseData:
    """What is stored of a file, read from the beginning to the end."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd, self._parts = fd, [*parts_of(fd, size)]
        numbers = [number for part in (*self._parts, (size, 0)) for number in part]
        text = "".join(f"{number}\n" for number in (len(numbers) // 2, *numbers)).encode()
        self._map = text + bytes(-len(text) % BLOCK)
        self.size = len(self._map) + sum(length for _, length in self._parts)

    def read(self, size: int) -> bytes:
        """So many bytes; fewer only if the file has become shorter."""
        found = bytearray(self._map[:size])
        self._map = self._map[size:]
        while len(found) < size and self._parts:
            offset, length = self._parts.pop(0)
            data = os.pread(self._fd, min(length, size - len(found)), offset)
            found += data
            if not data:
                break
            if len(data) < length:
                self._parts.insert(0, (offset + len(data), length - len(data)))
        return bytes(found)


def make_sparse(entry: tarfile.TarInfo, data: SparseData) -> None:
    """The entry of a whole file becomes one of these parts; who knows no sparse files unpacks it beside the others."""
    folder, name = posixpath.split(entry.name)
    sparse = {"major": "1", "minor": "0", "name": entry.name, "realsize": str(entry.size)}
    entry.pax_headers = {**entry.pax_headers, **{f"GNU.sparse.{key}": value for key, value in sparse.items()}}
    entry.name, entry.size = posixpath.join(folder, "GNUSparseFile.0", name), data.size
