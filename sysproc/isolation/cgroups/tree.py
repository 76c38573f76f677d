"""The tree of all containers' cgroups: where it is, making and finding its parts, and whose a cgroup is.

What one container's part can do is in `sysproc.isolation.cgroups.group`; which controllers there are, in
`sysproc.isolation.cgroups.controllers`. The drawing is in `sysproc.isolation.cgroups`.
"""

import errno
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from sysproc.errors import FailedPrecondition, Unimplemented
from sysproc.ids import is_hex_id
from sysproc.isolation.cgroups.control_files import read, write
from sysproc.isolation.cgroups.controllers import Bound, bind, to_enable
from sysproc.isolation.cgroups.delegation import delegate
from sysproc.isolation.cgroups.group import Cgroup, Means
from sysproc.isolation.cgroups.hierarchies import CgroupMode, Hierarchies, find
from sysproc.isolation.cgroups.identity import (
    DAEMON,
    LAUNCHER,
    PROCS,
    container_of_path,
    path_in_proc_cgroup,
    path_of_cgroup_id,
)
from sysproc.isolation.cgroups.limits import Limits
from sysproc.isolation.cgroups.place import Place, check_depth, make_directory, place_at, remove_directories
from sysproc.isolation.cgroups.root import default_root, normalized
from sysproc.isolation.cgroups.steering import steering_for
from sysproc.undo import Undo

END_TIMEOUT_S, _PAUSE_S = 5.0, 0.01


class CgroupTree:
    """All cgroups of one daemon; built once, used from any thread. Nothing is made before prepare()."""

    def __init__(self, root: str | PurePath | None = None, *, hierarchies: Hierarchies | None = None) -> None:
        """Find out what the host has. root: a path below each mount; None: see `sysproc.isolation.cgroups.root`.

        Raises Unimplemented (no cgroups mounted), InvalidArgument (a root that is none).
        """
        self.hierarchies = hierarchies or find()
        asked = normalized(str(root), self.hierarchies) if root is not None else None
        self.root = asked or default_root(self.hierarchies, Path("/proc/self/cgroup").read_text())
        self._place = place_at(self.hierarchies, self.root)
        self._enabled = to_enable(self.hierarchies)
        mount = self.hierarchies.v2.mount if self.hierarchies.v2 is not None else ""
        self._means = Means(tuple(bind(self.hierarchies)), steering_for(self.hierarchies), mount, threading.Lock())

    @property
    def mode(self) -> CgroupMode:
        """Which versions of cgroups the host has."""
        return self.hierarchies.mode

    @property
    def controllers(self) -> Sequence[Bound]:
        """The controllers in use, and where."""
        return self._means.controllers

    @property
    def launcher_procs(self) -> list[Path]:
        """The cgroup.procs files by which the launcher joins its leaf."""
        return [Path(directory, "cgroup.procs") for directory in self._place.child(LAUNCHER).directories()]

    # -- making

    def prepare(self) -> None:
        """Make the root and the launcher's leaf, and enable the controllers. Idempotent.

        Raises FailedPrecondition if version 2 does not let us: processes in the root, or controllers kept from it.
        """
        with self._means.structure:
            self._make_path_to_root()
            self._move_into_leaf()
            self._enable_down_to_root()
            for one in self._means.controllers:
                one.controller.prepare(one.directory(self._place))
            self._make_inner(self._place.child(LAUNCHER))

    def _make_path_to_root(self) -> None:
        steps = self.root.split("/")
        for length in range(1, len(steps) + 1):
            place_at(self.hierarchies, "/".join(steps[:length])).make()

    def _make_inner(self, place: Place) -> None:
        """A leaf; on version 1 with the processors of the group above."""
        place.make()
        cpuset = self._means.bound("cpuset")
        if cpuset is not None:
            cpuset.controller.open(cpuset.directory(place))

    def _move_into_leaf(self) -> None:
        """Version 2 divides a group only if no process is in it; in a delegated root those are of our own unit."""
        top = self._place.v2
        if top is None or not self._enabled:
            return
        if path_in_proc_cgroup(Path("/proc/self/cgroup").read_text(), "") != f"/{self.root}":
            return
        make_directory(f"{top}/{DAEMON}")
        while pids := read(f"{top}/cgroup.procs").split():
            for pid in pids:
                move(pid, f"{top}/{DAEMON}")

    def _enable_down_to_root(self) -> None:
        if self.hierarchies.v2 is None:
            return
        steps = ["", *self.root.split("/")]
        for length in range(1, len(steps) + 1):
            enable(self.hierarchies.v2.mount + "/".join(steps[:length]), self._enabled)

    def check_delegation(self) -> None:
        """Raise Unimplemented where no container can be given its part of the cgroups."""
        if self.mode is not CgroupMode.UNIFIED:
            raise Unimplemented(
                f"This host cannot delegate cgroups to containers: it has {self.mode.value}.",
                resolution="Leave `delegate` out, or boot the host with cgroup version 2 alone.",
                reason="NO_DELEGATION",
            )

    def create(
        self, path: Sequence[str], limits: Limits, *, above: Sequence[Limits] = (), owner: int | None = None
    ) -> Cgroup:
        """Make the cgroups of a container, its limits in force and its devices closed, without a process.

        owner: the container's root on the host, who may make groups below the container's own; None: nobody may.
        path: ids from the top down to it. above: the limits of the containers above it, from the top; they are set
        where a container above has no cgroups at the moment, because it does not run. Raises what set_limits and
        making a directory raise; then nothing new is left.
        """
        if not path or not all(map(is_hex_id, path)):
            raise ValueError(f"not a path of container ids: {path!r}")
        if above and len(above) != len(path) - 1:
            raise ValueError(f"{len(above)} limits for the {len(path) - 1} containers above {path[-1]}")
        limits.check()
        place = self._place.below(*path)
        check_depth(place)
        with self._means.structure, Undo() as undo:
            there = self._complete_above(path)
            for length in range(there + 1, len(path)):
                self._make_node(path[:length], above[length - 1] if above else Limits(), undo)
            group = self._make_node(path, limits, undo)
            self._make_leaf(group, place.child(PROCS), undo)
            if owner is not None:
                delegate(str(place.child(PROCS).v2), owner)
            undo.pop_all()
        return group

    def _complete_above(self, path: Sequence[str]) -> int:
        """How many of the steps to a container's parent are there, in every hierarchy."""
        for length in range(len(path) - 1, 0, -1):
            if all(map(os.path.isdir, self._place.below(*path[:length]).directories())):
                return length
        return 0

    def _make_node(self, path: Sequence[str], limits: Limits, undo: Undo) -> Cgroup:
        """A node, or one that an earlier run has left, as new."""
        place, group = self._place.below(*path), self.open(path)
        undo.add(str(group), remove_directories, place.make())
        for one in self._means.controllers:
            one.controller.open(one.directory(place))
        group.set_limits(limits)
        if place.v2 is not None:
            enable(place.v2, self._enabled)
        return group

    def _make_leaf(self, group: Cgroup, leaf: Place, undo: Undo) -> None:
        undo.add(f"the leaf of {group}", remove_directories, leaf.make())
        if group.populated:
            raise FailedPrecondition(
                f"Container {group.path[-1]} still has processes of an earlier run.",
                details=f"Pids on the host: {group.pids()[:8]}.",
                resolution="Stop or destroy it first.",
                reason="PROCESSES_LEFT",
            )
        group.thaw()

    # -- finding

    def open(self, path: Sequence[str]) -> Cgroup:
        """The part of a container that may or may not exist. path: ids from the top down to it."""
        return Cgroup(self._means, path, self._place.below(*path))

    def leftovers(self) -> list[tuple[str, ...]]:
        """The paths of all containers that have a directory in any hierarchy, parents first."""
        return list(self._containers_below(()))

    def _containers_below(self, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        for name in sorted(filter(is_hex_id, self._place.below(*path).children())):
            yield (*path, name)
            yield from self._containers_below((*path, name))

    def container_of_cgroup_id(self, cgroup_id: int) -> tuple[str, ...] | None:
        """The container that a version 2 cgroup belongs to, by its id: ids from the top; None: the host.

        Raises NoSuchCgroup if it cannot be told (the group is gone), which is never to be taken for the host.
        """
        if self.hierarchies.v2 is None:
            raise FailedPrecondition(
                "This host has no cgroup version 2, so a cgroup's id tells nothing.",
                resolution="Use the text of /proc/PID/cgroup.",
                reason="NO_CGROUP_V2",
            )
        return container_of_path(path_of_cgroup_id(self.hierarchies.v2.mount, cgroup_id), self.root)

    def container_of_proc_cgroup(self, text: str) -> tuple[str, ...] | None:
        """The same by the text of /proc/PID/cgroup."""
        hierarchy = "" if self.hierarchies.v2 is not None else self.hierarchies.v1[0].name
        return container_of_path(path_in_proc_cgroup(text, hierarchy), self.root)

    # -- the end

    def remove_when_empty(self, timeout_s: float = END_TIMEOUT_S) -> None:
        """remove(), once the last process has left: who ends closes its fds a little earlier. Blocks."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return self.remove()
            except OSError as failure:
                if failure.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
            time.sleep(_PAUSE_S)

    def remove(self) -> None:
        """Remove root and launcher's leaf, when no container is left and the launcher has ended; idempotent.

        A root that holds this very process stays. OSError(EBUSY): somebody is in it. For tests and uninstalling.
        """
        with self._means.structure:
            self._place.child(LAUNCHER).remove()
            if DAEMON not in self._place.children():
                self._place.remove()


def enable(directory: str, controllers: frozenset[str]) -> None:
    """Let the groups below a version 2 directory have these controllers.

    Raises FailedPrecondition if the group has processes, or the controllers are not given to it from above.
    """
    path = f"{directory}/cgroup.subtree_control"
    missing = controllers - set(read(path).split())
    if not missing:
        return
    try:
        write(path, " ".join(f"+{name}" for name in sorted(missing)))
    except OSError as failure:
        if failure.errno not in (errno.EBUSY, errno.ENOENT, errno.EINVAL):
            raise
        raise FailedPrecondition(
            f"The cgroup controllers {', '.join(sorted(missing))} cannot be enabled below {directory}.",
            details=f"The kernel says: {failure.strerror}. {why_not(failure.errno)}",
            resolution="Choose another place with --cgroup-root, or run the service with Delegate=yes under systemd.",
            reason="CGROUP_NOT_DELEGATED",
        ) from None


def why_not(number: int) -> str:
    """What the kernel means (cgroup-v2.rst, "Enabling and Disabling", "No Internal Process Constraint")."""
    return {
        errno.EBUSY: "Processes are in this group itself.",
        errno.ENOENT: "They are not enabled in the group above.",
        errno.EINVAL: "Realtime processes may be outside the root group.",
    }[number]


def move(pid: str, directory: str) -> None:
    """Put a process into a group; one that has ended is fine."""
    try:
        write(f"{directory}/cgroup.procs", pid)
    except OSError as failure:
        if failure.errno != errno.ESRCH:
            raise
