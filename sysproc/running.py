"""The containers that run: the fds by which the service holds each, and the watch for its end.

    adopted or built --add--> held --keeper ends (its pidfd becomes readable)--> on_end(id) --discard--> closed

Only what the kernel gives for a running container belongs here. What is recorded about it is in
`sysproc.storage.hierarchy`; how it comes up and goes down is in `sysproc.bring_up` and `sysproc.containers`.
"""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sysproc.errors import FailedPrecondition
from sysproc.ids import from_hex
from sysproc.isolation.cgroups import Cgroup


@dataclass(frozen=True)
class RunningContainer:
    """One running container and the fds that hold it; close() gives them back, the container runs on."""

    id: int
    path: tuple[str, ...]
    init_pid: int
    init_pidfd: int
    keeper_pidfd: int
    listener_fd: int
    cgroup: Cgroup
    uid_base: int
    profile: str
    api_users: str
    delegate: bool
    environment: tuple[tuple[bytes, bytes], ...]
    exec_dir: Path
    ended: asyncio.Event = field(default_factory=asyncio.Event, compare=False)

    def close(self) -> None:
        """Close the fds; call it once only, when nobody uses them any more."""
        for fd in (self.init_pidfd, self.keeper_pidfd, self.listener_fd):
            os.close(fd)


class RunningContainers:
    """All running containers of this daemon, by id; asyncio only, from one loop."""

    def __init__(self, on_end: Callable[[int], None]) -> None:
        self._held: dict[int, RunningContainer] = {}
        self._expected: set[int] = set()
        self._on_end = on_end

    def __len__(self) -> int:
        return len(self._held)

    def get(self, container_id: int) -> RunningContainer | None:
        """The running container, or None if it does not run."""
        return self._held.get(container_id)

    def check_thawed(self, path: Sequence[str]) -> None:
        """Raise FailedPrecondition if a process that joins now would not run: frozen here, or from above.

        The nearest one that runs knows, since the kernel freezes whole subtrees.
        """
        for name in reversed(path):
            container = self.get(from_hex(name))
            if container is not None:
                if container.cgroup.frozen:
                    raise frozen_above(path[-1], name)
                return

    def all(self) -> Mapping[int, RunningContainer]:
        """A snapshot of what runs."""
        return dict(self._held)

    def add(self, container: RunningContainer) -> None:
        """Hold a container and watch its keeper, which ends after it has written how init ended."""
        self._held[container.id] = container
        loop = asyncio.get_running_loop()
        loop.add_reader(container.keeper_pidfd, self._keeper_ended, container.id)

    def _keeper_ended(self, container_id: int) -> None:
        container = self._held[container_id]
        asyncio.get_running_loop().remove_reader(container.keeper_pidfd)
        container.ended.set()
        if container_id not in self._expected:
            self._on_end(container_id)

    def expect_end(self, container_id: int) -> None:
        """It is about to end, and who waits for `ended` does the rest: `on_end` is not called."""
        if container_id in self._held:
            self._expected.add(container_id)

    def discard(self, container_id: int) -> None:
        """Let go of a container and close its fds; nothing happens if it is not held."""
        self._expected.discard(container_id)
        container = self._held.pop(container_id, None)
        if container is not None:
            asyncio.get_running_loop().remove_reader(container.keeper_pidfd)
            container.close()

    def close(self) -> None:
        """Let go of all; they run on."""
        for container_id in list(self._held):
            self.discard(container_id)


def frozen_above(name: str, by: str) -> FailedPrecondition:
    """The error for what would start a process where none can run: in `name`, as is seen at `by`, it or one above."""
    where = "in it" if name == by else "below it"
    return FailedPrecondition(
        f"Container {by} is frozen, by itself or by one above it: nothing can be started {where}.",
        resolution="Thaw what is frozen, from the top of the tree down.",
        reason="FROZEN",
        metadata={"seen_at": by},
    )
