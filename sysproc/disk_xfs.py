"""The xfs in files of a state directory: each gives out no more room, or does again, whatever becomes of the others.

    found     what is mounted, and ours; before the first look some may have been left closed
    settled   a job for each that is not as it shall be (`sysproc.isolation.volumes.reserve`), and not waited for:
              one that is frozen waits for its thaw, as long as a copy may take; one that fails is tried again

When it is done is decided in `sysproc.disk_watch`.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from sysproc.isolation.launcher_client import ChildFailed, Launcher
from sysproc.linux.mounted_filesystems import mounted_from

log = structlog.get_logger()

# Longer than any copy. One that were killed while it is frozen would still do it when it is thawed, after others.
JOB_TIMEOUT_S = 7 * 86400.0
PAUSE_S = 5.0
# At the end a job is told to end; one that waits in the kernel does not.
END_S = 1.0

# The name of a device, and which of its mounts, one after the other, it is.
Key = tuple[str, int]


@dataclass
class OneXfs:
    """A mount. closed: what the last job has made of it, None: not known."""

    ours: bool
    closed: bool | None
    job: "asyncio.Task[None] | None" = None
    not_before: float = 0.0
    told: set[str] = field(default_factory=set)

    def is_under_way(self) -> bool:
        """Whether there is a job for it."""
        return self.job is not None and not self.job.done()


class DiskXfs:
    """Those of one state directory. `find` blocks, all else is called on the event loop; not at the same time."""

    def __init__(self, launcher: Launcher, is_ours: Callable[[str], bool]) -> None:
        """is_ours: whether the filesystem on a device is in a file of ours; it blocks."""
        self._launcher, self._is_ours = launcher, is_ours
        self._known: dict[Key, OneXfs] = {}
        self._looked = False

    def find(self) -> None:
        """See what is mounted."""
        there = mounted_from("xfs").items()
        for gone in self._known.keys() - there:
            if not self._known[gone].is_under_way():
                del self._known[gone]
        for key in there - self._known.keys():
            self._known[key] = OneXfs(self._is_ours(key[0]), closed=False if self._looked else None)
        self._looked = True

    def settle(self, *, closed: bool) -> None:
        """Begin what is to be done, so that each gives out no more room (closed), or does again."""
        now = asyncio.get_running_loop().time()
        for key, one in self._known.items():
            if one.ours and one.closed != closed and now >= one.not_before and not one.is_under_way():
                one.job = asyncio.create_task(self._reserve(key, one, closed))

    async def _reserve(self, key: Key, one: OneXfs, closed: bool) -> None:
        name, inode = key
        one.not_before = asyncio.get_running_loop().time() + PAUSE_S
        values = {"name": name, "inode": inode, "all": closed}
        try:
            done = await self._launcher.run_job("reserve_xfs", values, [], timeout_s=JOB_TIMEOUT_S)
        except Exception as failure:
            one.closed = None
            tell_once(name, one, failure, closed)
            return
        if done["changed"]:
            one.closed, one.not_before = closed, 0.0
            one.told.clear()

    async def end(self) -> None:
        """No job goes on, but for those that wait in the kernel; these are not waited for."""
        jobs = {one.job for one in self._known.values() if one.job is not None}
        for timeout in (END_S, None):  # the second time it gives up waiting for the end of what was killed
            for job in jobs:
                job.cancel()
            if jobs:
                _, jobs = await asyncio.wait(jobs, timeout=timeout)


def tell_once(name: str, one: OneXfs, failure: Exception, closed: bool) -> None:
    """Log what is wrong with it, unless that was done since it last went well."""
    if (why := str(failure)) in one.told:
        return
    one.told.add(why)
    number = failure.errno if isinstance(failure, ChildFailed) else None
    log.error(
        "an xfs could not be told of the room on the host's disk", device=name, errno=number, error=why, closed=closed
    )
