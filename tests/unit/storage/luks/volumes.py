"""Small encrypted volumes for these tests: in a file of memory, with keys that cost next to nothing.

What is true of them is in the tests beside this module.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from sysproc.storage.luks.key_derivation import Cost
from sysproc.storage.luks.region import Region
from sysproc.storage.luks.volume import format_volume, open_volume, unlock

CHEAP = Cost(passes=4, memory_kib=32, lanes=1)
SIZE = 17 << 20


@contextmanager
def region(size: int = SIZE, offset: int = 0) -> Iterator[Region]:
    fd = os.memfd_create("volume", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, offset + size)
        yield Region(fd, offset, size)
    finally:
        os.close(fd)


@contextmanager
def volume(secret: bytes = b"first", offset: int = 0) -> Iterator[Region]:
    with region(offset=offset) as made:
        format_volume(made, memoryview(secret), cost=CHEAP)
        yield made


def opens(region: Region, secret: bytes) -> bytes:
    """The volume key; WrongKey if there is no slot for this secret."""
    with unlock(region, open_volume(region), memoryview(secret)).key as key:
        return bytes(key.view)
