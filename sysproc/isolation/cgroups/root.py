"""Where in each hierarchy our tree begins.

    --cgroup-root NAME                                                NAME, below the mount of every hierarchy
    version 2, and our own cgroup is delegated (systemd, Delegate=)   our own cgroup; we move into its leaf `daemon`
    else                                                              sysproc

A directory that systemd has not delegated is left alone. Making the tree is `sysproc.isolation.cgroups.tree`.
"""

import errno
import os
from pathlib import PurePosixPath

from sysproc.errors import InvalidArgument
from sysproc.isolation.cgroups.hierarchies import CgroupMode, Hierarchies
from sysproc.isolation.cgroups.identity import DAEMON, NoSuchCgroup, path_in_proc_cgroup

DEFAULT = "sysproc"
# systemd.resource-control(5), Delegate=; the second one from systemd 251 on.
_DELEGATED = ("trusted.delegate", "user.delegate")


def normalized(name: str, hierarchies: Hierarchies) -> str:
    """A root as somebody asked for it, without slashes around it. Raises InvalidArgument."""
    mounts = [one.mount for one in (hierarchies.v2, *hierarchies.v1) if one is not None]
    for mount in mounts:
        if f"{name}/".startswith(f"{mount}/"):
            name = name.removeprefix(mount)
    steps = PurePosixPath(name.strip("/")).parts
    if not steps or ".." in steps:
        raise InvalidArgument(
            f"{name!r} cannot be the root of the cgroups.",
            resolution="Name a path below the mount point of each hierarchy, such as `sysproc`.",
            reason="BAD_CGROUP_ROOT",
        )
    return "/".join(steps)


def default_root(hierarchies: Hierarchies, proc_self_cgroup: str) -> str:
    """The root where nobody asked for one."""
    if hierarchies.mode is not CgroupMode.UNIFIED or hierarchies.v2 is None:
        return DEFAULT
    try:
        own = path_in_proc_cgroup(proc_self_cgroup, "")
    except NoSuchCgroup:
        return DEFAULT
    own = own.removesuffix(f"/{DAEMON}")  # where an earlier start of this very process has moved to
    if own != "/" and is_delegated(f"{hierarchies.v2.mount}{own}"):
        return own.strip("/")
    return DEFAULT


def is_delegated(directory: str) -> bool:
    """Whether systemd has left this directory to its service, and that service is the host's root."""
    try:
        return os.stat(directory).st_uid == 0 and any(_attribute(directory, name) == b"1" for name in _DELEGATED)
    except FileNotFoundError:
        return False


def _attribute(directory: str, name: str) -> bytes | None:
    try:
        return os.getxattr(directory, name)
    except OSError as failure:
        if failure.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise
        return None
