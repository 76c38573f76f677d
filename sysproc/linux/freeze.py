"""Freezing filesystems: FIFREEZE and FITHAW (Linux 2.6.29; ioctl_fs(2) does not have them, fsfreeze(8) does).

A frozen filesystem stays frozen whoever dies, and also without any mount: then a new mount of its device thaws it. Who
sees to that is in `sysproc.isolation.volumes.freeze`.
"""

import fcntl

FIFREEZE, FITHAW = 0xC0045877, 0xC0045878


def fifreeze(fd: int) -> None:
    """FIFREEZE the filesystem that the fd is on: what was written is on its device, and writers wait.

    EBUSY: it is frozen already. EOPNOTSUPP: it cannot be frozen, as those that are only read.
    """
    fcntl.ioctl(fd, FIFREEZE, 0)


def fithaw(fd: int) -> None:
    """FITHAW: writers go on. EINVAL: it is not frozen."""
    fcntl.ioctl(fd, FITHAW, 0)
