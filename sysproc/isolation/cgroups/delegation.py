"""A container's own part of version 2's hierarchy, given to its root (cgroup-v2.rst, "Delegation").

    <id>/procs                     the container's, root of its cgroup namespace: it makes groups below, moves its
                                   processes among them and divides controllers; it does not change the limits here
    <id>/procs/init.scope, …       made by the container

Once controllers are divided, no process may be in `procs` itself: who comes later joins init, wherever that is. Whose
a process is, is told by the directories before the first `procs` (`sysproc.isolation.cgroups.identity`), which the
container does not reach.
"""

import os
from pathlib import Path

from sysproc.isolation.cgroups.control_files import read, write
from sysproc.isolation.cgroups.identity import NoSuchCgroup, path_in_proc_cgroup

# /sys/kernel/cgroup/delegate, as far as it is about the group itself.
GIVEN = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control")
# Groups cost memory of the kernel's that no limit counts before Linux 5.18.
MOST_GROUPS, MOST_LEVELS = 1024, 32


def delegate(leaf: str, owner: int) -> None:
    """Let this user divide the group among groups that it makes below."""
    write(f"{leaf}/cgroup.max.descendants", MOST_GROUPS)
    write(f"{leaf}/cgroup.max.depth", MOST_LEVELS)
    for path in (leaf, *(f"{leaf}/{name}" for name in GIVEN)):
        os.chown(path, owner, owner)


def group_to_join(mount: str, leaf: str, init_pid: int) -> str:
    """Where a process that is started now can be: the container's group or, if that is divided, the one of init."""
    if not read(f"{leaf}/cgroup.subtree_control"):
        return leaf
    try:
        path = path_in_proc_cgroup(Path(f"/proc/{init_pid}/cgroup").read_text(), "")
    except (FileNotFoundError, ProcessLookupError, NoSuchCgroup):
        return leaf
    joined = f"{mount}{path}"
    return joined if f"{joined}/".startswith(f"{leaf}/") else leaf
