"""How much a mounted xfs keeps for itself (fs/xfs/xfs_fs.h; `resblks` of xfs_io(8)).

It is in memory only: the next mount begins with what is usual. Growing is in `sysproc.linux.resize`.
"""

import fcntl
import struct

XFS_IOC_FSGEOMETRY_V1, XFS_IOC_SET_RESBLKS, XFS_IOC_GET_RESBLKS = 0x80705864, 0xC0105872, 0x80105873
_GEOMETRY_BYTES, _DATABLOCKS_AT = 112, 32
_RESBLKS = struct.Struct("=QQ")
# What the kernel keeps by itself (xfs_default_resblks): a twentieth, and no more than so many.
_TWENTIETH, _MOST = 20, 8192


def reserve_all_blocks(fd: int) -> None:
    """Let nothing more be allocated, on the filesystem that the fd is on: ENOSPC; all else goes on.

    Also what is freed is kept, and what its own transactions need is taken from there. EROFS: nobody writes to it.
    """
    _set(fd, _data_blocks(fd))


def reserve_usual_blocks(fd: int) -> None:
    """As the kernel does it when it mounts."""
    _set(fd, min(_data_blocks(fd) // _TWENTIETH, _MOST))


def reserved_blocks(fd: int) -> int:
    """How many are kept at the moment."""
    return int(_RESBLKS.unpack(fcntl.ioctl(fd, XFS_IOC_GET_RESBLKS, bytes(_RESBLKS.size)))[0])


def _data_blocks(fd: int) -> int:
    geometry = fcntl.ioctl(fd, XFS_IOC_FSGEOMETRY_V1, bytes(_GEOMETRY_BYTES))
    return int(struct.unpack_from("=Q", geometry, _DATABLOCKS_AT)[0])


def _set(fd: int, blocks: int) -> None:
    fcntl.ioctl(fd, XFS_IOC_SET_RESBLKS, bytearray(_RESBLKS.pack(blocks, 0)))
