"""Control groups: one tree for all containers, whatever mix of version 1 and 2 the host has.

    <mount of each hierarchy>/<root>/launcher                        the launcher, keepers, supervisors
                                    /<id>                            limits, devices: of the container and all below it
                                    /<id>/procs                      the processes of the container itself
                                    /<id>/<child id>/…/procs         those of its children

`tree` is where callers begin, `group` is one container's part; `hierarchies` finds out what the host has, one file a
controller is in `controllers`, `steering` freezes, kills and waits. Who has which limits is decided by the callers.
"""

from sysproc.isolation.cgroups.group import Cgroup
from sysproc.isolation.cgroups.hierarchies import CgroupMode
from sysproc.isolation.cgroups.identity import NoSuchCgroup
from sysproc.isolation.cgroups.limits import Limits, Stats
from sysproc.isolation.cgroups.tree import CgroupTree

__all__ = ["Cgroup", "CgroupMode", "CgroupTree", "Limits", "NoSuchCgroup", "Stats"]
