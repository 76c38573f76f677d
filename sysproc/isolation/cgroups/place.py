"""A place: the same path in every mounted hierarchy, as directories.

Only making, finding and removing directories belongs here; what is written into their files is known by
`sysproc.isolation.cgroups.controllers` and `sysproc.isolation.cgroups.steering`.
"""

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sysproc.errors import ResourceExhausted
from sysproc.isolation.cgroups.control_files import subdirectories
from sysproc.isolation.cgroups.hierarchies import Hierarchies
from sysproc.undo import Undo

_FULL = (errno.EAGAIN, errno.ENOSPC, errno.ENOMEM)
# Below this, files of the group can still be opened by their path (PATH_MAX is 4096).
_LONGEST_PATH = 3900
_MODE = 0o755


@dataclass(frozen=True)
class Place:
    """One directory in each hierarchy. v1: by the hierarchy's name (`cpu,cpuacct`, `name=systemd`)."""

    v2: str | None
    v1: Mapping[str, str]

    def child(self, name: str) -> "Place":
        """The place one step below."""
        return Place(self.v2 and f"{self.v2}/{name}", {key: f"{path}/{name}" for key, path in self.v1.items()})

    def below(self, *names: str) -> "Place":
        """The place some steps below."""
        return self.child("/".join(names)) if names else self

    def directories(self) -> Iterator[str]:
        """All directories, version 2's first: where that is, there may be others."""
        if self.v2 is not None:
            yield self.v2
        yield from self.v1.values()

    @property
    def main(self) -> str:
        """The directory that is asked where one answers for all."""
        return next(self.directories())

    def exists(self) -> bool:
        """Whether it is there in any hierarchy."""
        return any(os.path.isdir(directory) for directory in self.directories())

    def children(self) -> set[str]:
        """The names of the groups directly below, in whatever hierarchy."""
        return {name for directory in self.directories() for name in subdirectories(directory)}

    def make(self) -> list[str]:
        """Make the directories that are not there, and return them. On failure none of them is left."""
        made: list[str] = []
        with Undo() as undo:
            for directory in self.directories():
                if make_directory(directory):
                    undo.add(directory, os.rmdir, directory)
                    made.append(directory)
            undo.pop_all()
        return made

    def remove(self) -> None:
        """Remove it with all that is below, deepest first; what is not there is fine. EBUSY: a process is in it."""
        for directory in reversed(list(self.directories())):
            remove_tree(directory)


def make_directory(path: str) -> bool:
    """mkdir; False if it was there. Raises ResourceExhausted where the kernel allows no more groups.

    Whatever the umask, others may pass: before Linux 6.16 the kernel walks down from the top with the permissions of
    whoever mounts a cgroup namespace's part, which is the container.
    """
    made = True
    try:
        os.mkdir(path)
    except FileExistsError:
        made = False
    except OSError as failure:
        if failure.errno not in _FULL:
            raise
        raise no_more_groups(path, failure) from None
    os.chmod(path, _MODE)
    return made


def no_more_groups(path: str, failure: OSError) -> ResourceExhausted:
    """The error for a limit of the kernel's on cgroups."""
    return ResourceExhausted(
        "The host allows no more cgroups.",
        details=f"mkdir {path}: {failure.strerror}.",
        resolution="Destroy containers, or raise cgroup.max.descendants and cgroup.max.depth above this directory.",
        reason="TOO_MANY_CGROUPS",
    )


def remove_directories(directories: Sequence[str]) -> None:
    """rmdir, the last one first."""
    for directory in reversed(directories):
        os.rmdir(directory)


def remove_tree(directory: str) -> None:
    """rmdir of a group and of all groups below it, deepest first; mostly there are none, so that is tried first."""
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return
    except OSError as failure:
        if failure.errno != errno.EBUSY or not (below := subdirectories(directory)):
            raise
        for name in below:
            remove_tree(f"{directory}/{name}")
        os.rmdir(directory)


def check_depth(place: Place) -> None:
    """Raise ResourceExhausted if the kernel could not name what is in this place any more."""
    longest = max(len(os.fsencode(directory)) for directory in place.directories())
    if longest > _LONGEST_PATH:
        raise ResourceExhausted(
            "The container would be nested too deeply.",
            details=f"The path of its cgroup would have {longest} bytes, at most {_LONGEST_PATH} can be used.",
            resolution="Make it the child of a container further up.",
            reason="NESTED_TOO_DEEPLY",
        )


def place_at(hierarchies: Hierarchies, path: str) -> Place:
    """A path below the mount of every hierarchy."""
    unified = f"{hierarchies.v2.mount}/{path}" if hierarchies.v2 else None
    return Place(unified, {one.name: f"{one.mount}/{path}" for one in hierarchies.v1})
