"""The area of a file that an encrypted volume occupies: all reads and writes of a header pass through here.

Nothing outside of the area can be reached, and what is written is whole or an error.
"""

import errno
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Region:
    """`size` bytes of the file from `offset` on; positions are counted from there."""

    fd: int
    offset: int
    size: int

    @classmethod
    def whole(cls, fd: int) -> "Region":
        """All of a file, or of a block device."""
        return cls(fd, 0, os.lseek(fd, 0, os.SEEK_END))

    def read(self, at: int, length: int) -> bytes:
        """The bytes there; fewer where area or file end. For what is no secret."""
        length = max(0, min(length, self.size - at))
        return os.pread(self.fd, length, self.offset + at)

    def read_into(self, at: int, target: memoryview) -> None:
        """Fill the target. OSError(EIO) where area or file end before it is full."""
        self._must_hold(at, len(target))
        done = 0
        while done < len(target):
            count = os.preadv(self.fd, [target[done:]], self.offset + at + done)
            if count == 0:
                raise OSError(errno.EIO, "the file is shorter than its encrypted area", str(self._path()))
            done += count

    def write(self, at: int, data: bytes | memoryview) -> None:
        """Write all of it."""
        self._must_hold(at, len(data))
        rest, done = memoryview(data), 0
        while done < len(rest):
            done += os.pwrite(self.fd, rest[done:], self.offset + at + done)

    def sync(self) -> None:
        """What was written is on the disk when this returns."""
        os.fdatasync(self.fd)

    def data_extents(self, start: int, end: int) -> list[tuple[int, int]]:
        """Where the file has data between two positions (lseek(2), SEEK_DATA); holes are left out."""
        found, at, last = [], self.offset + start, self.offset + min(end, self.size)
        while at < last:
            try:
                begin = os.lseek(self.fd, at, os.SEEK_DATA)
            except OSError as failure:
                if failure.errno != errno.ENXIO:
                    raise
                break
            at = min(os.lseek(self.fd, begin, os.SEEK_HOLE), last)
            if begin < at:
                found.append((begin - self.offset, at - self.offset))
        return found

    def _must_hold(self, at: int, length: int) -> None:
        if at < 0 or at + length > self.size:
            raise OSError(errno.EINVAL, f"{length} bytes at {at} are outside of the encrypted area", str(self._path()))

    def _path(self) -> Path:
        return Path(f"/proc/self/fd/{self.fd}")
