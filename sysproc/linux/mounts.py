"""Mounts: mount(2), umount2(2), pivot_root(2), and the newer calls that work on detached mounts.

Every fd returned is close-on-exec. What is mounted where, and with which flags, is decided in `sysproc.isolation`.
"""

import ctypes
import os
from collections.abc import Mapping
from contextlib import ExitStack

from sysproc.linux.libc import (
    NR_FSCONFIG,
    NR_FSMOUNT,
    NR_FSOPEN,
    NR_FSPICK,
    NR_MOUNT_SETATTR,
    NR_MOVE_MOUNT,
    NR_OPEN_TREE,
    Pathish,
    check,
    encode,
    number_of,
    syscall,
)

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x1, 0x2, 0x4, 0x8
MS_REMOUNT, MS_BIND, MS_MOVE, MS_REC = 0x20, 0x1000, 0x2000, 0x4000
MS_PRIVATE, MS_SLAVE, MS_SHARED, MS_RELATIME = 0x40000, 0x80000, 0x100000, 0x200000
MNT_DETACH, UMOUNT_NOFOLLOW = 0x2, 0x8

AT_FDCWD = -100
AT_EMPTY_PATH, AT_RECURSIVE, AT_SYMLINK_NOFOLLOW = 0x1000, 0x8000, 0x100
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC = 0x1, os.O_CLOEXEC
FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC = 0x1, 0x1
FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSCONFIG_CMD_CREATE, FSCONFIG_CMD_RECONFIGURE = 0, 1, 6, 7
FSPICK_CLOEXEC, FSPICK_EMPTY_PATH = 0x1, 0x8
MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH = 0x4, 0x40

MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 0x1, 0x2, 0x4, 0x8
MOUNT_ATTR_IDMAP = 0x00100000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]


def mount(source: Pathish, target: Pathish, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    result = _libc.mount(encode(source), encode(target), encode(fstype) or None, flags, encode(data) or None)
    check(result, "mount", f"{fstype} {os.fsdecode(target)}".strip())


def umount2(target: Pathish, flags: int = 0) -> None:
    """umount2(2)."""
    check(_libc.umount2(encode(target), flags), "umount2", os.fsdecode(target))


def pivot_root(new_root: Pathish, put_old: Pathish) -> None:
    """pivot_root(2)."""
    syscall("pivot_root", number_of("pivot_root"), encode(new_root), encode(put_old), target=os.fsdecode(new_root))


def fsopen(fstype: str, flags: int = FSOPEN_CLOEXEC) -> int:
    """fsopen(2), Linux 5.2: a context in which a filesystem is configured."""
    return syscall("fsopen", NR_FSOPEN, encode(fstype), flags, target=fstype)


def fsconfig(fd: int, command: int, key: str | None = None, value: str | None = None) -> None:
    """fsconfig(2), Linux 5.2, for flags, strings and commands."""
    raw_key = encode(key) if key is not None else None
    raw_value = encode(value) if value is not None else None
    syscall(
        "fsconfig",
        NR_FSCONFIG,
        fd,
        command,
        raw_key,
        raw_value,
        0,
        target=f"{key or ''} {value or ''}".strip(),
    )


def fsmount(fd: int, attributes: int = 0, flags: int = FSMOUNT_CLOEXEC) -> int:
    """fsmount(2), Linux 5.2: a detached mount of what was configured, with MOUNT_ATTR_* set."""
    return syscall("fsmount", NR_FSMOUNT, fd, flags, attributes)


def new_mount(fstype: str, options: Mapping[str, str | None], attributes: int = 0) -> int:
    """fsopen, fsconfig, fsmount: a detached mount of a new instance; an option whose value is None is a flag.

    OSError names the type of the filesystem as well.
    """
    try:
        with ExitStack() as stack:
            context = fsopen(fstype)
            stack.callback(os.close, context)
            for name, value in options.items():
                fsconfig(context, FSCONFIG_SET_FLAG if value is None else FSCONFIG_SET_STRING, name, value)
            fsconfig(context, FSCONFIG_CMD_CREATE)
            return fsmount(context, attributes)
    except OSError as failure:
        raise OSError(failure.errno, failure.strerror, f"{failure.filename} of {fstype}") from None


def reconfigure(mount_fd: int, *flags: str) -> None:
    """fspick(2), Linux 5.2, and fsconfig: set flags ("ro") of the filesystem itself, in whatever namespace it is."""
    context = syscall("fspick", NR_FSPICK, mount_fd, b"", FSPICK_CLOEXEC | FSPICK_EMPTY_PATH)
    try:
        for flag in flags:
            fsconfig(context, FSCONFIG_SET_FLAG, flag)
        fsconfig(context, FSCONFIG_CMD_RECONFIGURE)
    finally:
        os.close(context)


def open_tree(dirfd: int, path: Pathish, flags: int) -> int:
    """open_tree(2), Linux 5.2; OPEN_TREE_CLONE gives a detached copy. Always close-on-exec."""
    raw = encode(path)
    return syscall("open_tree", NR_OPEN_TREE, dirfd, raw, flags | OPEN_TREE_CLOEXEC, target=os.fsdecode(raw))


def move_mount(from_fd: int, to_dirfd: int, to_path: Pathish) -> None:
    """move_mount(2), Linux 5.2: attach the mount that the fd stands for at a path, or at to_dirfd itself if empty."""
    raw = encode(to_path)
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if raw else MOVE_MOUNT_T_EMPTY_PATH)
    syscall("move_mount", NR_MOVE_MOUNT, from_fd, b"", to_dirfd, raw, flags, target=os.fsdecode(raw))


class MountAttr(ctypes.Structure):
    """struct mount_attr of linux/mount.h."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def mount_setattr(
    dirfd: int,
    path: Pathish,
    *,
    flags: int = AT_EMPTY_PATH,
    set_: int = 0,
    clear: int = 0,
    userns_fd: int = 0,
) -> None:
    """mount_setattr(2), Linux 5.12. MOUNT_ATTR_IDMAP (ext4 5.12, tmpfs 6.3) works on a detached mount only."""
    attr = MountAttr(set_, clear, 0, userns_fd)
    size = ctypes.sizeof(attr)
    raw = encode(path)
    syscall(
        "mount_setattr",
        NR_MOUNT_SETATTR,
        dirfd,
        raw,
        flags,
        ctypes.byref(attr),
        size,
        target=os.fsdecode(raw),
    )
