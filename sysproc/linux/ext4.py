"""ext4 while it is mounted: growing it. The format on disk is in `sysproc.storage.vsf`."""

import fcntl
import struct

EXT4_IOC_RESIZE_FS = 0x40086610


def resize(mounted_fd: int, blocks: int) -> None:
    """EXT4_IOC_RESIZE_FS, Linux 3.3: grow the mounted filesystem to so many blocks."""
    fcntl.ioctl(mounted_fd, EXT4_IOC_RESIZE_FS, struct.pack("Q", blocks))
