"""The root filesystem of a container as a detached mount: out of a file, by a loop device, idmapped.

    VSF fd --LOOP_CONFIGURE (autoclear)--> /dev/loopN --fsopen, fsmount (nodev)--> mount fd --IDMAP--> attached

The host's mount table never shows it. What is mounted below it is in `sysproc.isolation.host_mounts`.
"""

import errno
import os
import stat

from sysproc.failpoints import failpoint
from sysproc.linux.loop import LO_FLAGS_AUTOCLEAR, loop_configure
from sysproc.linux.mounts import (
    MOUNT_ATTR_IDMAP,
    MOUNT_ATTR_NODEV,
    mount_setattr,
    new_mount,
)

# What a root needs for others to be mounted on, and the mode of what is missing.
MOUNT_POINTS = {"dev": 0o755, "proc": 0o555, "sys": 0o555, "run": 0o755}


def mount_detached(vsf_fd: int, *, fstype: str, offset: int, size: int) -> int:
    """Mount the filesystem at this place of the file, attached nowhere; returns the mount's fd.

    The loop device frees itself with the last use of the mount (LO_FLAGS_AUTOCLEAR).
    """
    device_fd, device = loop_configure(vsf_fd, offset=offset, size=size, flags=LO_FLAGS_AUTOCLEAR)
    try:
        failpoint("build.after_loop")
        return new_mount(fstype, {"source": device}, MOUNT_ATTR_NODEV)
    finally:
        os.close(device_fd)


def make_mount_points(root_fd: int) -> None:
    """Make the directories that others are mounted on, where the root has none; before the mount is idmapped.

    OSError with the path below the root: ENOTDIR if it has something else there (a link would lead the mounts
    astray), ENOSPC if it is full.
    """
    for name, mode in MOUNT_POINTS.items():
        try:
            _make_directory(root_fd, name, mode)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=root_fd, follow_symlinks=False).st_mode):
                raise OSError(errno.ENOTDIR, "the root has no directory there", f"/{name}") from None
        except OSError as failure:
            raise OSError(failure.errno, failure.strerror, f"/{name}") from None


def make_tmp(root_fd: int) -> None:
    """Make /tmp where the name is free. Nothing is mounted there: whatever else the container has there will do."""
    try:
        _make_directory(root_fd, "tmp", 0o1777)
    except OSError as failure:
        if failure.errno not in (errno.EEXIST, errno.ENOSPC, errno.EDQUOT):
            raise


def _make_directory(root_fd: int, name: str, mode: int) -> None:
    os.mkdir(name, mode, dir_fd=root_fd)
    os.chmod(name, mode, dir_fd=root_fd)


def idmap(mount_fd: int, userns_fd: int) -> None:
    """Show the filesystem's ids 0.. as those of the user namespace; only before the mount is attached."""
    mount_setattr(mount_fd, "", set_=MOUNT_ATTR_IDMAP, userns_fd=userns_fd)
