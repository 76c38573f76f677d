"""A filesystem of a volume that is in use, grown to what its part of the file has become.

    job (forked by the launcher)
      the device of the part, found by its place (`sysproc.isolation.volumes.devices`); of an encrypted volume by its
      name (`sysproc.isolation.volumes.decrypted_devices`)
      LOOP_SET_STATUS64: as large as the part is now
      own mount namespace; mounted once more, seen by nobody: the same superblock
      the ioctl of its type, which is a transaction of the filesystem: done, or done again by whoever asks next
      syncfs

That the file and its table are large enough, on the disk, is seen to before (`sysproc.volume_resize`), and so is that
what is decrypted has grown with the file (`sysproc.volume_growth`).
"""

import errno
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from sysproc.failpoints import failpoint
from sysproc.isolation.builder import enter_own_mount_namespace
from sysproc.isolation.volumes.decrypted_devices import decrypted_device
from sysproc.isolation.volumes.devices import device_in_use
from sysproc.isolation.volumes.shrink import mounted
from sysproc.linux.files import syncfs
from sysproc.linux.loop import loop_set_sizelimit
from sysproc.linux.resize import btrfs_resize, ext4_resize_fs, xfs_growfs

Values = Mapping[str, Any]

RESIZE: dict[str, Callable[[int, int], None]] = {
    "ext4": ext4_resize_fs,
    "btrfs": lambda top, size: btrfs_resize(top, str(size)),
    "xfs": xfs_growfs,
}


def grow_mounted(values: Values, fds: Sequence[int], __: socket.socket) -> Mapping[str, Any]:
    """The job. values: file, fstype, offset, size of the part by now; encrypted, fds: as `decrypted_device` takes them.

    OSError(EPERM): not without CAP_SYS_RESOURCE.
    """
    size, encrypted = values["size"], values.get("encrypted")
    with device_for(values, encrypted, fds) as device:
        enter_own_mount_namespace()
        if encrypted is None or encrypted["whole"]:
            widen(device, size)
        failpoint("volumes.grow.after_device")
        with mounted(values["fstype"], device) as top:
            RESIZE[values["fstype"]](top, size)
            syncfs(top)
    return {}


def device_for(values: Values, encrypted: Mapping[str, Any] | None, fds: Sequence[int]) -> AbstractContextManager[str]:
    """The block device of the filesystem, whoever has it."""
    file, place = Path(values["file"]), {"offset": values["offset"], "size": values["size"]}
    if encrypted is None:
        return device_in_use(file, **place)
    return decrypted_device(file, {**encrypted, **place}, fds, device_in_use)


def widen(device: str, size: int) -> None:
    """Let the device have this size; kernels that first want all of its pages gone say EAGAIN."""
    fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        loop_set_sizelimit(fd, size)
    except OSError as failure:
        if failure.errno != errno.EAGAIN:
            raise
        raise OSError(errno.EBUSY, "the kernel changes no device that is in use", device) from None
    finally:
        os.close(fd)
