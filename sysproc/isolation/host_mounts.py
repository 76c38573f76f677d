"""What the host puts into every container besides the root: /dev, /run, the API socket's directory, the frame of /sys.

All of it is tmpfs of the host's user namespace, so that device nodes work, owned by the container's base uid, with
its flags set before the container sees it. What the container's own init mounts is in `sysproc.isolation.inside`.
"""

import os
import socket
import stat
from collections.abc import Iterable

from sysproc.linux.files import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from sysproc.linux.mounts import (
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    mount_setattr,
    move_mount,
    new_mount,
)

# Name, major, minor of Documentation/admin-guide/devices.txt; each a node of the container's own.
DEVICE_NODES = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
DEVICE_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)
DEVICE_DIRECTORIES = ("pts", "shm", "mqueue")

# Of sysfs a container sees only what describes its own network and the processors.
SYS_PIECES = ("class/net", "devices/virtual/net", "devices/system/cpu", "devices/system/node")
SYS_CGROUP = "fs/cgroup"
SOCKET_NAME = "sysproc.sock"


def attach(mount_fd: int, root_fd: int, path: str) -> None:
    """Attach a mount at a directory below the root, without following any link of the image."""
    target = openat2(root_fd, path, os.O_PATH | os.O_DIRECTORY, resolve=RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH)
    try:
        move_mount(mount_fd, target, "")
    finally:
        os.close(target)


def tmpfs(attributes: int, **options: str) -> int:
    """A detached tmpfs with these mount options (tmpfs(5)); returns the mount's fd."""
    return new_mount("tmpfs", options, attributes)


def make_dev(base: int) -> int:
    """/dev: nodes of its own, not binds of the host's, through which locks and inotify would cross."""
    flags = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC
    dev = tmpfs(flags, mode="0755", uid=str(base), gid=str(base), size="1m", nr_inodes="4096")
    for name, major, minor in DEVICE_NODES:
        os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(major, minor), dir_fd=dev)
        os.chown(name, base, base, dir_fd=dev)
        os.chmod(name, 0o666, dir_fd=dev)
    for name, target in DEVICE_LINKS:
        os.symlink(target, name, dir_fd=dev)
        os.chown(name, base, base, dir_fd=dev, follow_symlinks=False)
    _make_directories(dev, DEVICE_DIRECTORIES, base)
    return dev


def _make_directories(parent_fd: int, paths: Iterable[str], owner: int) -> None:
    for path in paths:
        for depth in range(path.count("/") + 1):
            part = "/".join(path.split("/")[: depth + 1])
            try:
                os.mkdir(part, 0o755, dir_fd=parent_fd)
                os.chown(part, owner, owner, dir_fd=parent_fd)
            except FileExistsError:
                continue


def make_run(base: int) -> int:
    """/run, with the directories that programs expect and the one of the API socket."""
    run = tmpfs(MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, mode="0755", uid=str(base), gid=str(base))
    _make_directories(run, ("sysproc", "lock"), base)
    os.chmod("lock", 0o1777, dir_fd=run)
    return run


def make_socket_directory(base: int, backlog: int) -> tuple[int, socket.socket]:
    """/run/sysproc: the API socket, listening, on a tmpfs of its own that is read-only from then on.

    Every user inside may connect; what one may do there is decided by its uid (`sysproc.server.interceptor`).
    """
    flags = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
    directory = tmpfs(flags, mode="0755", uid=str(base), gid=str(base), size="4k", nr_inodes="8")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    listener.bind(f"/proc/self/fd/{directory}/{SOCKET_NAME}")
    os.chown(SOCKET_NAME, base, base, dir_fd=directory)
    os.chmod(SOCKET_NAME, 0o666, dir_fd=directory)
    listener.listen(backlog)
    mount_setattr(directory, "", set_=MOUNT_ATTR_RDONLY)
    return directory, listener


def make_sys(base: int, hierarchies: Iterable[str]) -> int:
    """The frame of /sys: empty directories on which init mounts the pieces; read-only."""
    flags = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
    frame = tmpfs(flags, mode="0555", uid=str(base), gid=str(base), size="4k", nr_inodes="64")
    controllers = tuple(f"{SYS_CGROUP}/{name}" for name in hierarchies)
    _make_directories(frame, (*SYS_PIECES, SYS_CGROUP, *controllers), base)
    mount_setattr(frame, "", set_=MOUNT_ATTR_RDONLY)
    return frame
