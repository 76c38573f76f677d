"""The decrypted data of an open volume: read and written in its encrypted file, sector by sector.

The cipher is `sysproc.storage.luks.sector_cipher`; who asks for the data is in `sysproc.storage.decrypted.server`.
"""

import errno
import os
import threading

from sysproc.storage.luks.metadata import Segment
from sysproc.storage.luks.region import Region
from sysproc.storage.luks.sector_cipher import SectorCipher


def data_size(region: Region, segment: Segment) -> int:
    """How much data there is in an area, in bytes; whole sectors. A segment may say its size, and stays so large."""
    size = region.size - segment.offset if segment.size is None else segment.size
    return size // segment.sector_size * segment.sector_size


class DecryptedSectors:
    """Several threads may use one: nothing is kept between calls.

    A loop device with our sectors as its blocks writes whole ones; but direct I/O out of memory that is not aligned to
    pages reaches us in requests that end within a sector, and the next one, maybe at the same time, goes on there.
    """

    def __init__(self, region: Region, segment: Segment, key: memoryview) -> None:
        self.sector_size, self._segment = segment.sector_size, segment
        self.size = data_size(region, segment)
        self._data = Region(region.fd, region.offset + segment.offset, self.size)
        self._cipher = SectorCipher(key, segment.sector_size, segment.iv_tweak)
        self._parts = threading.Lock()

    def widen(self, region: Region) -> None:
        """The area has become larger: what is in it is where it was."""
        size = data_size(region, self._segment)
        if size > self.size:
            self._data = Region(region.fd, region.offset + self._segment.offset, size)
            self.size = size

    def read_into(self, buffer: memoryview, at: int, length: int) -> memoryview:
        """The bytes there, as a part of the buffer, which has room for two sectors more; fewer at the end."""
        length = min(length, self.size - at)
        if length <= 0:
            return buffer[:0]
        before = at % self.sector_size
        whole = -(-(before + length) // self.sector_size) * self.sector_size
        sectors = buffer[:whole]
        self._data.read_into(at - before, sectors)
        self._cipher.decrypt(sectors, at - before)
        return sectors[before : before + length]

    def write(self, data: memoryview, at: int) -> None:
        """Encrypt, in place, and write. OSError(EFBIG) behind the end."""
        if at + len(data) > self.size:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        if at % self.sector_size or len(data) % self.sector_size:
            self._write_parts(data, at)
        else:
            self._cipher.encrypt(data, at)
            self._data.write(at, data)

    def _write_parts(self, data: memoryview, at: int) -> None:
        """Read the sectors that it is in, and write them with it; one after the other."""
        before = at % self.sector_size
        around = memoryview(bytearray(before + len(data) + self.sector_size))
        with self._parts:
            whole = -(-(before + len(data)) // self.sector_size) * self.sector_size
            self.read_into(around, at - before, whole)
            around[before : before + len(data)] = data
            self._cipher.encrypt(around[:whole], at - before)
            self._data.write(at - before, around[:whole])

    def sync(self) -> None:
        """What was written is on the disk."""
        self._data.sync()
