"""Ending containers: waiting for init, reading how it ended, and giving back all that a container had.

    init dead (keeper has written how) -> socket -> cgroups -> uid range           a stopped container keeps its files
                                                      ... -> files -> row          a destroyed one keeps nothing

Every step is idempotent, so that a crash in the middle is finished by doing it again. Who decides that a container
shall end is `sysproc.containers`.
"""

import asyncio
import errno
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from sysproc.failpoints import failpoint
from sysproc.host import Host
from sysproc.ids import to_hex
from sysproc.isolation.volumes.raw import clear, raw_devices
from sysproc.running import RunningContainer

log = structlog.get_logger()


@dataclass(frozen=True)
class HowItEnded:
    """What the keeper wrote; both None if it was killed before it could (the host's doing)."""

    exit_code: int | None
    exit_signal: int | None

    def sentence(self, oom_killed: bool) -> str:
        """For people."""
        if self.exit_code is not None:
            return f"init exited with {self.exit_code}"
        if self.exit_signal is not None:
            return f"init was killed by signal {self.exit_signal}" + (" (out of memory)" if oom_killed else "")
        return "init ended, nobody saw how"


def parse_status(text: str) -> HowItEnded:
    """Read the keeper's status file: `exited N` or `killed N`; anything else is "nobody saw how"."""
    how, _, number = text.strip().partition(" ")
    if not number.isdigit():
        return HowItEnded(None, None)
    return HowItEnded(int(number), None) if how == "exited" else HowItEnded(None, int(number))


def read_status(host: Host, container_id: int) -> HowItEnded:
    """How init of this container ended last, as its keeper wrote it."""
    try:
        text = host.state_dir.container(to_hex(container_id)).status.read_text("ascii", "replace")
    except FileNotFoundError:
        return HowItEnded(None, None)
    return parse_status(text)


async def wait_ended(running: RunningContainer, timeout_s: float) -> bool:
    """Wait until init has ended and the keeper has written how; False if it has not in this time."""
    try:
        async with asyncio.timeout(timeout_s):
            await running.ended.wait()
    except TimeoutError:
        return False
    return True


def release_kernel_parts(host: Host, path: Sequence[str]) -> None:
    """Give back cgroups and uid range of a container that no process is in any more; blocks, idempotent."""
    host.cgroups.open(path).remove()
    failpoint("containers.end.after_cgroup")
    release_raw(host, path[-1])
    host.uid_ranges.reclaim(host.owner(path[-1]))


def release_raw(host: Host, name: str) -> None:
    """Give back the raw disks of a container (`sysproc.volume_raw`), if it had any; blocks, idempotent."""
    marker = host.state_dir.container(name).raw
    if not marker.exists():
        return
    for one in raw_devices(host.state_dir.volumes):
        if one.container == name:
            clear(one)
    marker.unlink(missing_ok=True)


def remove_all(host: Host, path: Sequence[str]) -> None:
    """Give back everything but the row; blocks, idempotent."""
    release_kernel_parts(host, path)
    remove_files(host, path[-1])


def remove_files(host: Host, name: str) -> None:
    """What is left on the disk; blocks, idempotent."""
    host.state_dir.remove_container(name)
    host.storage_limited.discard(name)
    failpoint("containers.destroy.after_files")


def take_apart(host: Host, path: Sequence[str]) -> bool:
    """Give back all of one container but its row, if no process is in it; whether it did. Blocks, but waits not.

    Who is still in it is killed again: it came in while the others were killed.
    """
    failpoint("containers.destroy.after_processes")
    cgroup = host.cgroups.open(path)
    if not cgroup.remove_if_empty():
        cgroup.kill_own()
        return False
    failpoint("containers.destroy.after_cgroup")
    release_raw(host, path[-1])
    host.uid_ranges.reclaim(host.owner(path[-1]))
    try:
        remove_files(host, path[-1])
    except OSError as failure:
        if failure.errno not in (errno.ENOTEMPTY, errno.ENOENT):
            raise
        return False  # a process was about to be started, and finds out now
    return True


def try_to_take_apart(host: Host, path: Sequence[str]) -> bool | str:
    """The same; a failure is returned as a sentence."""
    try:
        return take_apart(host, path)
    except Exception as failure:
        log.warning("container cannot be destroyed yet", container=path[-1], error=str(failure))
        return str(failure) or type(failure).__name__


def take_many_apart(host: Host, paths: Sequence[Sequence[str]]) -> list[bool | str]:
    """A batch of them, in this order, in one thread."""
    return [try_to_take_apart(host, path) for path in paths]
