"""What the kernel lets one set of a mounted ext4 (Documentation/ABI/testing/sysfs-fs-ext4).

Only this belongs here; superblocks are read and changed in `sysproc.storage.vsf`.
"""

import errno
from pathlib import Path

# What the kernel keeps by itself: a fiftieth, and no more than so many (ext4_calculate_resv_clusters).
_FIFTIETH, _MOST = 50, 4096
_USUAL_BLOCK, _LEAST_BLOCK, _SECTOR = 4096, 1024, 512


def reserve_all_clusters(device: str) -> None:
    """Let nothing more be allocated on a device (`/dev/loop3`): ENOSPC for whoever wants to; all else goes on.

    OSError(ENOENT): there is no ext4 mounted from it.
    """
    count = _bytes(device) // _LEAST_BLOCK
    while count > 1 and not _set(device, count - 1):
        count //= 2


def reserve_usual_clusters(device: str) -> None:
    """As the kernel does it when it mounts."""
    _set(device, min(_bytes(device) // _USUAL_BLOCK // _FIFTIETH, _MOST))


def delayed_allocation_bytes(device: str) -> int:
    """What was accepted and has no place on the device yet, at most. OSError(ENOENT) as above."""
    return int(Path("/sys/fs/ext4", Path(device).name, "delayed_allocation_blocks").read_text()) * _USUAL_BLOCK


def _set(device: str, count: int) -> bool:
    """Whether the filesystem has more than so many."""
    try:
        Path("/sys/fs/ext4", Path(device).name, "reserved_clusters").write_text(str(count))
    except OSError as failure:
        if failure.errno != errno.EINVAL:
            raise
        return False
    return True


def _bytes(device: str) -> int:
    return int(Path("/sys/block", Path(device).name, "size").read_text()) * _SECTOR
