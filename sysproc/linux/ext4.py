"""What the kernel lets one set of a mounted ext4 (Documentation/ABI/testing/sysfs-fs-ext4).

Only this belongs here; superblocks are read and changed in `sysproc.storage.vsf`.
"""

import errno
import os
from types import TracebackType
from typing import Self

# What the kernel keeps by itself: a fiftieth, and no more than so many (ext4_calculate_resv_clusters).
_FIFTIETH, _MOST = 50, 4096
_USUAL_BLOCK, _LEAST_BLOCK, _SECTOR = 4096, 1024, 512
_NUMBER_BYTES = 32


class MountedExt4:
    """One that is mounted, by the name of its device (`loop3`). A file of sysfs is kept open: so looking costs a
    microsecond, not thirty. OSError(ENOENT, ENODEV), of everything here: it is mounted no more.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._delayed_fd = os.open(f"/sys/fs/ext4/{name}/delayed_allocation_blocks", os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """It is looked at no more."""
        os.close(self._delayed_fd)

    def delayed_allocation_bytes(self) -> int:
        """What was accepted and has no place on the device yet, at most."""
        return int(os.pread(self._delayed_fd, _NUMBER_BYTES, 0)) * _USUAL_BLOCK

    def reserve_all_clusters(self) -> None:
        """Let nothing more be allocated: ENOSPC for whoever wants to; all else goes on."""
        count = self._bytes() // _LEAST_BLOCK
        while count > 1 and not self._reserve(count - 1):
            count //= 2

    def reserve_usual_clusters(self) -> None:
        """As the kernel does it when it mounts."""
        self._reserve(min(self._bytes() // _USUAL_BLOCK // _FIFTIETH, _MOST))

    def _reserve(self, count: int) -> bool:
        """Whether the filesystem has more than so many."""
        fd = os.open(f"/sys/fs/ext4/{self._name}/reserved_clusters", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"%d" % count)
        except OSError as failure:
            if failure.errno != errno.EINVAL:
                raise
            return False
        finally:
            os.close(fd)
        return True

    def _bytes(self) -> int:
        fd = os.open(f"/sys/block/{self._name}/size", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return int(os.read(fd, _NUMBER_BYTES)) * _SECTOR
        finally:
            os.close(fd)
