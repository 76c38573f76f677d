"""Freezing, thawing, killing and waiting: by version 2 where it is mounted, also beside controllers of version 1.

    version 2    cgroup.freeze, cgroup.kill, cgroup.events (populated, frozen); one write for the whole subtree
    version 1    the freezer, then signals one by one; there is no event for "empty": it is asked again

A task that the freezer of version 1 holds survives cgroup.kill until it is thawed: the two are never mixed. Which
place is steered is decided by `sysproc.isolation.cgroups.group`.
"""

import errno
import os
import select
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from sysproc.errors import Unavailable
from sysproc.isolation.cgroups.control_files import parse_flat_keyed, read, subdirectories, write
from sysproc.isolation.cgroups.hierarchies import Hierarchies
from sysproc.isolation.cgroups.place import Place
from sysproc.linux.pidfd import kill_listed

FREEZE_TIMEOUT_S = 10.0
_KILL_TIMEOUT_S = 10.0
# Of version 1.
_HOLD_TIMEOUT_S = 1.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.001, 0.02
_PIDFDS_AT_A_TIME = 256


class Steering(Protocol):
    """What can be done with all processes of a place and of everything below it. What is not there is fine."""

    def freeze(self, place: Place, timeout_s: float) -> bool:
        """Stop them all; False if one did not stop in this time (it will, when it comes out of the kernel)."""

    def thaw(self, place: Place) -> None:
        """Let them go on, except below groups that are frozen themselves."""

    def frozen(self, place: Place) -> bool:
        """Whether all are stopped, by this place or one above."""

    def kill(self, place: Place) -> None:
        """SIGKILL to all, frozen or not, however quickly they fork."""

    def pids(self, place: Place) -> list[int]:
        """All of them, as the reader's pid namespace numbers them."""

    def wait_empty(self, place: Place, timeout_s: float) -> bool:
        """Wait until none is left; False if one is left after this time. A zombie does not count."""


def steering_for(hierarchies: Hierarchies) -> Steering:
    """The way that this host has."""
    return SteeringV2() if hierarchies.v2 is not None else SteeringV1(hierarchies)


def groups(directory: str) -> Iterator[str]:
    """A group and all groups below it."""
    yield directory
    for name in subdirectories(directory):
        yield from groups(f"{directory}/{name}")


def pids_below(directory: str) -> list[int]:
    """The processes of a group and of all below; those in groups that vanish meanwhile have ended."""
    found: list[int] = []
    for group in groups(directory):
        try:
            found.extend(map(int, read(f"{group}/cgroup.procs").split()))
        except FileNotFoundError:
            continue
    return found


class SteeringV2:
    """By the core of version 2 (cgroup-v2.rst, "Core Interface Files"); Linux 5.14 for cgroup.kill."""

    def freeze(self, place: Place, timeout_s: float) -> bool:
        """cgroup.freeze, then the event. ENOENT: there is no such group."""
        write(f"{place.v2}/cgroup.freeze", 1)
        return wait_for_event(f"{place.v2}/cgroup.events", "frozen", 1, timeout_s)

    def thaw(self, place: Place) -> None:
        """cgroup.freeze."""
        try:
            write(f"{place.v2}/cgroup.freeze", 0)
        except FileNotFoundError:
            return

    def frozen(self, place: Place) -> bool:
        """cgroup.events; an empty group counts as the kernel says."""
        try:
            return parse_flat_keyed(read(f"{place.v2}/cgroup.events"))["frozen"] == 1
        except FileNotFoundError:
            return False

    def kill(self, place: Place) -> None:
        """cgroup.kill: forks that are under way die too."""
        try:
            write(f"{place.v2}/cgroup.kill", 1)
        except FileNotFoundError:
            return

    def pids(self, place: Place) -> list[int]:
        """cgroup.procs of each group."""
        return pids_below(str(place.v2))

    def wait_empty(self, place: Place, timeout_s: float) -> bool:
        """cgroup.events."""
        return wait_for_event(f"{place.v2}/cgroup.events", "populated", 0, timeout_s)


def wait_for_event(path: str, key: str, value: int, timeout_s: float) -> bool:
    """Wait until a line of cgroup.events has this value; a group that is gone has no processes: True.

    kernfs notifies a poll for POLLPRI once the file has been read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        poll, deadline = select.poll(), time.monotonic() + timeout_s
        poll.register(fd, select.POLLPRI)
        while parse_flat_keyed(os.pread(fd, 4096, 0).decode()).get(key) != value:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            poll.poll(left * 1000)
    except OSError as failure:
        if failure.errno != errno.ENODEV:  # removed while we waited
            raise
    finally:
        os.close(fd)
    return True


def ask_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Ask again and again, where the kernel has no event for it; False if it is not so after this time."""
    deadline, pause = time.monotonic() + timeout_s, _FIRST_PAUSE_S
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)
    return True


class SteeringV1:
    """By the freezer (freezer-subsystem.rst) and signals."""

    def __init__(self, hierarchies: Hierarchies) -> None:
        freezer = hierarchies.v1_with("freezer")
        self._freezer = freezer.name if freezer is not None else None
        self._any = (freezer or hierarchies.v1[0]).name

    def freeze(self, place: Place, timeout_s: float) -> bool:
        """freezer.state. Raises Unavailable where no freezer is mounted."""
        if self._freezer is None:
            raise Unavailable(
                "This host cannot freeze: it has cgroups of version 1, and no freezer among them.",
                resolution="Mount the freezer hierarchy, or cgroup version 2.",
                reason="NO_FREEZER",
            )
        write(f"{place.v1[self._freezer]}/freezer.state", "FROZEN")
        return ask_until(lambda: self.frozen(place), timeout_s)

    def thaw(self, place: Place) -> None:
        """freezer.state."""
        if self._freezer is not None:
            self._thaw_group(place.v1[self._freezer])

    def _thaw_group(self, directory: str) -> None:
        try:
            write(f"{directory}/freezer.state", "THAWED")
        except FileNotFoundError:
            return

    def frozen(self, place: Place) -> bool:
        """freezer.state; reading it lets the kernel see whether the last has stopped."""
        if self._freezer is None:
            return False
        try:
            return read(f"{place.v1[self._freezer]}/freezer.state") == "FROZEN"
        except FileNotFoundError:
            return False

    def kill(self, place: Place) -> None:
        """Hold them, signal each, let go: who is frozen does not fork. Again, if one was not frozen in time."""
        ask_until(lambda: self._kill_once(place), _KILL_TIMEOUT_S)

    def _kill_once(self, place: Place) -> bool:
        """Whether there was nobody to kill."""
        if not self.pids(place):
            return True
        self._hold(place)
        pids = self.pids(place)
        for first in range(0, len(pids), _PIDFDS_AT_A_TIME):
            kill_listed(pids[first : first + _PIDFDS_AT_A_TIME], lambda: self.pids(place))
        self._let_go(place)
        return False

    def _hold(self, place: Place) -> None:
        if self._freezer is None:
            return
        try:
            self.freeze(place, _HOLD_TIMEOUT_S)
        except FileNotFoundError:
            return

    def _let_go(self, place: Place) -> None:
        """All groups: one below may be frozen by itself, and a frozen process does not die."""
        if self._freezer is not None:
            for group in groups(place.v1[self._freezer]):
                self._thaw_group(group)

    def pids(self, place: Place) -> list[int]:
        """cgroup.procs of each group."""
        return pids_below(place.v1[self._any])

    def wait_empty(self, place: Place, timeout_s: float) -> bool:
        """Asked again and again."""
        return ask_until(lambda: not self.pids(place), timeout_s)
