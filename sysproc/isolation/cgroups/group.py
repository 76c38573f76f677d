"""One container's part of the tree: its limits, its processes, its end.

    node   <root>/…/<id>         limits and devices; they hold for everything below
    leaf   <root>/…/<id>/procs   the container's own processes

A container that is stopped while containers below it run keeps its node, and so its limits hold on. Which container
has which limits is recorded in `sysproc.storage.hierarchy`; where the tree begins is `sysproc.isolation.cgroups.tree`.
"""

import errno
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sysproc.errors import NotFound, Unavailable, Unimplemented
from sysproc.isolation.builder_spec import CgroupDirectories
from sysproc.isolation.cgroups.control_files import subdirectories
from sysproc.isolation.cgroups.controllers import Bound
from sysproc.isolation.cgroups.controllers.memory import oom_kills
from sysproc.isolation.cgroups.delegation import group_to_join
from sysproc.isolation.cgroups.identity import PROCS
from sysproc.isolation.cgroups.limits import Limits, Stats
from sysproc.isolation.cgroups.place import Place
from sysproc.isolation.cgroups.steering import FREEZE_TIMEOUT_S, Steering, groups
from sysproc.undo import Undo

END_TIMEOUT_S = 10.0
_AT_MOST_NAMED = 8
# A group that is removed, before its file was opened or after.
_GONE = (errno.ENOENT, errno.ENODEV)


@dataclass(frozen=True)
class Means:
    """What all groups of one tree share."""

    controllers: tuple[Bound, ...]
    steering: Steering
    # Of version 2; empty where that is not mounted.
    v2_mount: str
    # Directories come and go under it, so that a parent is not removed while a child is made.
    structure: threading.Lock

    def bound(self, name: str) -> Bound | None:
        """The controller of this name, if the host has it."""
        return next((one for one in self.controllers if one.name == name), None)


class Cgroup:
    """The cgroups of one container, whether they exist (any more) or not. All methods block."""

    def __init__(self, means: Means, path: Sequence[str], node: Place) -> None:
        self._means, self.path, self._node = means, tuple(path), node
        self._leaf = node.child(PROCS)

    def __repr__(self) -> str:
        return f"Cgroup({'/'.join(self.path)})"

    @property
    def procs_dirs(self) -> CgroupDirectories:
        """The directories whose cgroup.procs takes the container's own processes."""
        return CgroupDirectories(self._leaf.v2, dict(self._leaf.v1))

    def group_to_join(self, init_pid: int) -> CgroupDirectories:
        """Like procs_dirs, for a process of a container that divides its part by itself (delegation)."""
        leaf = str(self._leaf.v2)
        return CgroupDirectories(group_to_join(self._means.v2_mount, leaf, init_pid), {})

    @property
    def exists(self) -> bool:
        """Whether the container has any directory: it runs, or containers below it do."""
        return self._node.exists()

    # -- limits

    def set_limits(self, limits: Limits) -> None:
        """Hold the container and all below it to these limits, from now on; fields that are None have none.

        Raises InvalidArgument (out of range), FailedPrecondition (more memory is in use), Unimplemented (the host
        lacks the controller), NotFound (there are no cgroups of this container). Then the earlier limits hold on.
        """
        limits.check()
        self._check_possible(limits)
        if not self.exists:
            raise self._gone()
        with Undo() as undo:
            for one in self._means.controllers:
                if one.controller.field is not None:
                    directory = one.directory(self._node)
                    before = Limits(**{one.controller.field: one.controller.read_limit(directory)})
                    undo.add(f"the change of {one.name}", one.controller.limit, directory, before)
                    one.controller.limit(directory, limits)
            undo.pop_all()

    def _check_possible(self, limits: Limits) -> None:
        there = {one.controller.field for one in self._means.controllers}
        for field, value in vars(limits).items():
            if value is not None and field not in there:
                raise Unimplemented(
                    f"This host cannot limit {field}: its kernel has no such cgroup controller, or it is not mounted.",
                    resolution="Leave the limit out, or enable the controller (/proc/cgroups, cgroup.controllers).",
                    reason="NO_CONTROLLER",
                )

    def limits(self) -> Limits:
        """What was asked for last, as the kernel keeps it."""
        return Limits(
            **{
                one.controller.field: one.controller.read_limit(one.directory(self._node))
                for one in self._means.controllers
                if one.controller.field is not None
            }
        )

    def stats(self) -> Stats:
        """What the container and all below it use now. Raises NotFound if it has no cgroups (any more)."""
        figures: dict[str, int | None] = {}
        try:
            for one in self._means.controllers:
                figures.update(one.controller.stats(one.directory(self._node)))
        except FileNotFoundError:
            raise self._gone() from None
        return Stats(**figures)

    def oom_kills(self) -> int:
        """How many of the container's own processes the kernel has killed for memory since it was started."""
        memory = self._means.bound("memory")
        if memory is None:
            return 0
        top, unified = memory.directory(self._leaf), memory.hierarchy is None
        try:
            return sum(oom_kills(group, unified=unified) for group in ([top] if unified else groups(top)))
        except OSError as failure:
            if failure.errno not in _GONE:
                raise
            return 0

    # -- devices

    def give_block_devices(self, own: Collection[tuple[int, int]], below: Collection[tuple[int, int]]) -> None:
        """Let its processes open its own block devices, and those of containers below it theirs; and no others.

        For all above it that has to be done first. Raises NotFound if it does not run.
        """
        devices = self._means.bound("devices")
        if devices is None:
            raise Unimplemented(
                "This host cannot open single devices to a container: its kernel has no such cgroup controller.",
                resolution="Mount the volume instead.",
                reason="NO_CONTROLLER",
            )
        try:
            devices.controller.give(devices.directory(self._node), {*own, *below})
            devices.controller.give(devices.directory(self._leaf), own)
        except FileNotFoundError:
            raise self._gone() from None

    # -- processes

    def freeze(self, timeout_s: float = FREEZE_TIMEOUT_S) -> None:
        """Stop all processes of the container and of all below it, until thaw.

        Raises Unavailable if one does not stop in this time (all go on then), NotFound without cgroups.
        """
        try:
            frozen = self._means.steering.freeze(self._node, timeout_s)
        except FileNotFoundError:
            raise self._gone() from None
        if not frozen:
            self.thaw()
            raise Unavailable(
                f"Container {self.path[-1]} could not be frozen within {timeout_s:.0f} s.",
                details="A process in it is waiting inside the kernel, probably for a disk or a device.",
                resolution="Try again.",
                reason="NOT_FROZEN",
            )

    def thaw(self) -> None:
        """Let them go on. Containers below that were frozen by themselves stay so."""
        self._means.steering.thaw(self._node)

    @property
    def frozen(self) -> bool:
        """Whether all processes are stopped, by this container's freeze or that of one above."""
        return self._means.steering.frozen(self._node)

    def kill(self) -> None:
        """SIGKILL to every process of the container and of all below it; returns before they have ended."""
        self._means.steering.kill(self._node)

    def kill_own(self) -> None:
        """SIGKILL to every process of the container itself; those below it live on."""
        self._means.steering.kill(self._leaf)

    def pids(self) -> list[int]:
        """The container's own processes, by their pids on the host."""
        return self._means.steering.pids(self._leaf)

    def pids_of_subtree(self) -> list[int]:
        """The processes of the container and of all below it, by their pids on the host; none if it does not run."""
        return self._means.steering.pids(self._node)

    @property
    def populated(self) -> bool:
        """Whether the container itself has a process; zombies do not count."""
        return not self.wait_empty(0)

    def wait_empty(self, timeout_s: float) -> bool:
        """Wait until the container itself has no process any more; False if it still has one then."""
        return self._means.steering.wait_empty(self._leaf, timeout_s)

    # -- the end

    def remove(self, timeout_s: float = END_TIMEOUT_S) -> None:
        """Remove the directories once the container's own processes have ended; the node stays if it has children.

        Idempotent. Raises Unavailable, with who is left, if a process does not end in this time.
        """
        if not self.wait_empty(timeout_s):
            raise self._not_empty(timeout_s)
        self._remove()

    def remove_if_empty(self) -> bool:
        """The same without waiting; False, and something may be left, if a process is in it."""
        try:
            self._remove()
        except OSError as failure:
            if failure.errno != errno.EBUSY:
                raise
            return False
        return True

    def _remove(self) -> None:
        with self._means.structure:
            self._leaf.remove()
            if subdirectories(self._node.main):  # where a child has any directory, it has this one
                self.thaw()  # those below were stopped with it
            else:
                self._node.remove()

    def _not_empty(self, timeout_s: float) -> Unavailable:
        left = [describe(pid) for pid in self.pids()]
        named = ", ".join(left[:_AT_MOST_NAMED]) + (", …" if len(left) > _AT_MOST_NAMED else "")
        return Unavailable(
            f"Container {self.path[-1]} still has {len(left)} processes after {timeout_s:.0f} s.",
            details=f"They are {named}.",
            resolution="One in state D waits inside the kernel, probably for a disk: mend that, then try again.",
            reason="PROCESS_STUCK",
        )

    def _gone(self) -> NotFound:
        return NotFound(
            f"Container {self.path[-1]} has no cgroups.",
            resolution="It does not run: start it first.",
            reason="NO_CGROUP",
        )


def describe(pid: int) -> str:
    """A process for people: pid, name, state."""
    try:
        fields: Mapping[str, str] = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
        )
    except (FileNotFoundError, ProcessLookupError):
        return f"{pid} (ended)"
    return f"{pid} {fields['Name'].strip()} ({fields['State'].strip()})"
