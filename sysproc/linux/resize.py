"""Growing mounted filesystems: ioctls of ext4, btrfs and xfs on any fd in them.

They need CAP_SYS_ADMIN of the host, ext4's CAP_SYS_RESOURCE as well, which not every host's root has: where nobody uses
the filesystem, resize2fs is used instead, by `sysproc.isolation.jobs`.
"""

import fcntl
import os
import struct

BTRFS_IOC_RESIZE = 0x50009403
XFS_IOC_FSGEOMETRY_V1, XFS_IOC_FSGROWFSDATA = 0x80705864, 0x4010586E
EXT4_IOC_RESIZE_FS = 0x40086610
_BTRFS_VOL_ARGS = struct.Struct("<q4088s")
_XFS_GEOMETRY_BYTES, _XFS_BLOCKSIZE_AT, _XFS_IMAXPCT_AT = 112, 0, 28
_XFS_GROWFS_DATA = struct.Struct("=QI4x")


def ext4_resize_fs(fd: int, size: int) -> None:
    """EXT4_IOC_RESIZE_FS (Linux 3.3; with meta_bg 3.7): to so many bytes. EPERM without CAP_SYS_RESOURCE."""
    blocks = size // os.fstatvfs(fd).f_frsize
    fcntl.ioctl(fd, EXT4_IOC_RESIZE_FS, struct.pack("=Q", blocks))


def btrfs_resize(fd: int, size: str = "max") -> None:
    """BTRFS_IOC_RESIZE (btrfs-ioctl(2)): to the device's size, or another as `btrfs filesystem resize` takes it."""
    # Python copies at most 1 KiB of what cannot be changed.
    fcntl.ioctl(fd, BTRFS_IOC_RESIZE, bytearray(_BTRFS_VOL_ARGS.pack(0, os.fsencode(size))))


def xfs_growfs(fd: int, size: int) -> None:
    """XFS_IOC_FSGROWFSDATA (ioctl_xfs_fsgrowfs(2)): to so many bytes. The share of inodes stays as it is."""
    geometry = fcntl.ioctl(fd, XFS_IOC_FSGEOMETRY_V1, bytes(_XFS_GEOMETRY_BYTES))
    (blocksize,) = struct.unpack_from("=I", geometry, _XFS_BLOCKSIZE_AT)
    (imaxpct,) = struct.unpack_from("=I", geometry, _XFS_IMAXPCT_AT)
    fcntl.ioctl(fd, XFS_IOC_FSGROWFSDATA, _XFS_GROWFS_DATA.pack(size // blocksize, imaxpct))
