"""Ending containers: waiting for init, reading how it ended, and giving back all that a container had.

    init dead (keeper has written how) -> socket -> cgroups -> uid range           a stopped container keeps its files
                                                      ... -> files -> row          a destroyed one keeps nothing

Every step is idempotent, so that a crash in the middle is finished by doing it again. Who decides that a container
shall end is `sysproc.containers`.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from sysproc.failpoints import failpoint
from sysproc.host import Host
from sysproc.ids import to_hex
from sysproc.running import RunningContainer, RunningContainers
from sysproc.storage.hierarchy import ContainerRow
from sysproc.to_end import to_end

INIT_END_TIMEOUT_S = 30.0


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
    name = path[-1]
    host.cgroups.open(path).remove()
    failpoint("containers.end.after_cgroup")
    host.uid_ranges.reclaim(host.owner(name))


def remove_all(host: Host, path: Sequence[str]) -> None:
    """Give back everything but the row; blocks, idempotent."""
    release_kernel_parts(host, path)
    host.state_dir.remove_container(path[-1])
    host.storage_limited.discard(path[-1])
    failpoint("containers.destroy.after_files")


async def take_apart(host: Host, held: RunningContainers, row: ContainerRow, path: Sequence[str]) -> None:
    """End one container whose processes have been killed, all but its row. Raises if it does not end."""
    running = held.get(row.id)
    if running is not None:
        if not await wait_ended(running, INIT_END_TIMEOUT_S):
            raise TimeoutError("its init does not end; a process may be stuck in the kernel")
        host.sockets.remove(row.id)
        held.discard(row.id)
    failpoint("containers.destroy.after_processes")
    await to_end(remove_all, host, path)
