"""A filesystem of a volume, taken out of a container again.

    job (forked by the launcher)                     K (its child)
      the mount's place, by its id, in the tables
      of the container's processes
      fork ─────────────────────────────────────────▶ user and mount namespace of the process
                                                      umount2(place)
      {"gone": n} ◀────────────────────────────────── done │ FAILED errno target

Without force the one mount goes, and only if nothing in the container uses it: EBUSY says that something does, and
`sysproc.isolation.volumes.holders` what. With force every mount of the filesystem goes, in every mount namespace of
the container's processes, whatever uses it: who still holds a file is to be ended by whoever asked.
"""

import errno
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from sysproc.isolation.volumes.attach import become_root_inside, in_child, pid_of
from sysproc.isolation.volumes.mount_table import Mounted, mounts_of
from sysproc.linux.mounts import MNT_DETACH, UMOUNT_NOFOLLOW, umount2
from sysproc.linux.namespaces import CLONE_NEWNS, CLONE_NEWUSER, setns
from sysproc.linux.pidfd import pidfd_open

Values = Mapping[str, Any]

# Of one namespace: something mounts it again all the time.
_MOST = 4096
# Renaming what is above it moves a mount: how often it is looked for again, and what a path says that is not right
# any more. A copy that is locked stays where it is, with EINVAL.
_TRIES = 32
_MOVED = (errno.EINVAL, errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def detach(values: Values, fds: Sequence[int], _: socket.socket) -> Mapping[str, Any]:
    """The job; fds: the pidfd of the container's init. values: pids of its other processes; device; mount's id; force.

    OSError: EBUSY; EINVAL if no such mount is there (any more); ESRCH if the container has ended.
    """
    (init_pidfd,) = fds
    init = pid_of(init_pidfd)
    if values["force"]:
        return {"gone": sum(detach_all(init_pidfd, pid, values["device"]) for pid in (init, *values["pids"]))}
    detach_one(init_pidfd, init, values["mount"], values["device"])
    return {"gone": 1}


def detach_one(init_pidfd: int, init: int, number: int, device: str) -> None:
    """Unmount the mount of this id. Where it is may change while its path is walked: then it is looked at again."""
    for left in reversed(range(_TRIES)):
        mounted = next((one for one in mounts_of(init) if one.id == number), None)
        if mounted is None or mounted.device != device:
            raise OSError(errno.EINVAL, "not mounted", f"mount {number}")
        try:
            unmount(init_pidfd, init, mounted, 0)
            break
        except OSError as failure:
            if failure.errno not in _MOVED or not left:
                raise


def detach_all(init_pidfd: int, pid: int, device: str) -> int:
    """Unmount, lazily, whatever of the device is mounted in a process's namespace; how many that were.

    What is mounted on top goes first. A namespace that belongs to a user namespace made inside has copies that are
    locked; these end with its processes.
    """
    gone, tries = 0, _TRIES
    while gone < _MOST and tries and (top := _topmost(pid, device)) is not None:
        number = _unmount_lazily(init_pidfd, pid, top)
        if number == errno.ESRCH or (number == errno.EINVAL and _topmost(pid, device) == top):
            break
        gone += not number
        tries -= bool(number)
    return gone


def _topmost(pid: int, device: str) -> Mounted | None:
    """The last mount of the device; None also if the process has ended."""
    try:
        found = [one for one in mounts_of(pid) if one.device == device]
    except OSError as failure:
        if failure.errno not in (errno.ENOENT, errno.ESRCH, errno.EINVAL):
            raise
        return None
    return found[-1] if found else None


def _unmount_lazily(init_pidfd: int, pid: int, mounted: Mounted) -> int:
    """0, or why it is not there: an errno."""
    try:
        unmount(init_pidfd, pid, mounted, MNT_DETACH)
    except OSError as failure:
        if failure.errno not in (*_MOVED, errno.ESRCH):
            raise
        return failure.errno
    return 0


def unmount(init_pidfd: int, pid: int, mounted: Mounted, flags: int) -> None:
    """umount2(2) as the container's own root, in the mount namespace of one of its processes.

    A pid that is another's by now is one whose namespace that root may not enter.
    """
    pidfd = pidfd_open(pid)
    try:
        in_child(lambda: _unmount_inside(init_pidfd, pidfd, mounted.point, flags))
    finally:
        os.close(pidfd)


def _unmount_inside(init_pidfd: int, pidfd: int, point: bytes, flags: int) -> bytes:
    setns(init_pidfd, CLONE_NEWUSER)
    become_root_inside()
    setns(pidfd, CLONE_NEWNS)
    umount2(point, flags | UMOUNT_NOFOLLOW)
    return b"done"
