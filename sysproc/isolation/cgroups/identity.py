"""Which container a cgroup belongs to: the directories before the first `procs`.

    /<root>/00c0ffee00c0ffee/0123456789abcdef/procs/whatever/procs   ->  the container 0123…, child of 00c0…
    /<root>/launcher, /user.slice/…                                  ->  none: the host

What is below our root and has another form is nobody's: it is refused, never taken for the host. Asking the kernel
about a process is the callers' business (`sysproc.server.peer`).
"""

import errno
import os

from sysproc.ids import is_hex_id
from sysproc.linux.file_handles import open_by_kernfs_id

PROCS, LAUNCHER, DAEMON = "procs", "launcher", "daemon"
_DELETED = " (deleted)"


class NoSuchCgroup(LookupError):
    """The cgroup is gone, or has no place in our tree: whose it was cannot be told."""


def container_of_path(path: str, root: str) -> tuple[str, ...] | None:
    """The ids from the top down to the container; None on the host. Paths as in /proc/PID/cgroup, root without slashes.

    Raises NoSuchCgroup.
    """
    path = path.removesuffix(_DELETED)
    if not f"{path}/".startswith(f"/{root}/"):
        return None
    steps = path.removeprefix(f"/{root}").strip("/").split("/")
    if steps[0] in ("", LAUNCHER, DAEMON):
        return None
    ids = tuple(steps[: steps.index(PROCS)]) if PROCS in steps else ()
    if not ids or not all(map(is_hex_id, ids)):
        raise NoSuchCgroup(f"no container has processes in {path!r}")
    return ids


def path_of_cgroup_id(mount: str, cgroup_id: int) -> str:
    """The path below the mount of a version 2 cgroup, by its id; about ten microseconds. Raises NoSuchCgroup."""
    mount_fd = os.open(mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = open_by_kernfs_id(mount_fd, cgroup_id)
        try:
            path = os.readlink(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
    except OSError as failure:
        if failure.errno not in (errno.ESTALE, errno.ENOENT):
            raise
        raise NoSuchCgroup(f"there is no cgroup {cgroup_id} (any more)") from None
    finally:
        os.close(mount_fd)
    return path.removeprefix(mount) or "/"


def path_in_proc_cgroup(text: str, hierarchy: str) -> str:
    """The path of one hierarchy (its name; empty: version 2) in the text of /proc/PID/cgroup. Raises NoSuchCgroup."""
    for line in text.splitlines():
        _, name, path = line.split(":", 2)
        if name == hierarchy:
            return path
    raise NoSuchCgroup(f"/proc/PID/cgroup says nothing of hierarchy {hierarchy or 'version 2'!r}")
