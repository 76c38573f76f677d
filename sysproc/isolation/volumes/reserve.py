"""An xfs in a file of ours that gives out no more room, while the host's disk is full; and then again.

    job (forked by the launcher), one for each device
      opened, so that it stays what it is; is it the same xfs that was seen?
      own mount namespace; mounted once more, seen by nobody: the same superblock
      the ioctl of `sysproc.linux.xfs`

ext4 has a file of sysfs for this, which needs no mount. Who asks for it is in `sysproc.disk_xfs`.
"""

import errno
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sysproc.isolation.builder import enter_own_mount_namespace
from sysproc.isolation.volumes.shrink import mounted
from sysproc.linux.xfs import reserve_all_blocks, reserve_usual_blocks

Values = Mapping[str, Any]

# Unmounted meanwhile (EINVAL: and another of the same UUID is mounted); or only read, so that nobody takes any room.
_NOT_WRITTEN = (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EINVAL, errno.EROFS, errno.EBUSY, errno.EACCES)


def reserve_xfs(values: Values, _: Sequence[int], __: socket.socket) -> Mapping[str, Any]:
    """The job: that on the device `name`, with the `inode` of its directory in sysfs; `all`, or as usual.

    It waits while that is frozen. changed: false, if it is not there any more, or nobody may write to it now. OSError:
    it has shut down (EIO), and others.
    """
    enter_own_mount_namespace()
    reserve = reserve_all_blocks if values["all"] else reserve_usual_blocks
    return {"changed": changed(values["name"], values["inode"], reserve)}


def changed(name: str, inode: int, reserve: Callable[[int], None]) -> bool:
    """Whether it is still that one, and is written."""
    try:
        device_fd = os.open(f"/dev/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if os.stat(f"/sys/fs/xfs/{name}").st_ino != inode:
                return False
            with mounted("xfs", f"/dev/{name}") as top:
                reserve(top)
        finally:
            os.close(device_fd)
    except OSError as failure:
        if failure.errno not in _NOT_WRITTEN:
            raise
        return False
    return True
