"""What a controller does for a container, and when. Each method is called with the directory it is about.

    prepare(root)         once, on the directory of all containers, before anything is below it
    open(node)            on a container's directory, before anything is below it or in it; again when it is reused
    limit(node, limits)   then, and whenever the limits change, also with containers and processes below
    read_limit, stats     at any time

A node is `<root>/…/<id>`: what is set there holds for the container and all below it.
"""

from collections.abc import Collection, Mapping
from typing import ClassVar

from sysproc.isolation.cgroups.limits import Limits


class Controller:
    """One controller on one version of cgroups; without a method of its own there is nothing to do."""

    # The field of `Limits` that is this controller's business.
    field: ClassVar[str | None] = None

    def prepare(self, root: str) -> None:
        """Set what all containers inherit."""

    def open(self, node: str) -> None:
        """Set what every container has. Idempotent."""

    def give(self, node: str, devices: Collection[tuple[int, int]]) -> None:
        """Let these block devices be opened (major, minor), and no others."""

    def limit(self, node: str, limits: Limits) -> None:
        """Hold the subtree to its field of the limits. Raises FailedPrecondition if it cannot be held now."""

    def read_limit(self, node: str) -> int | None:
        """What was asked for, as the kernel's files tell it."""
        return None

    def stats(self, node: str) -> Mapping[str, int | None]:
        """Fields of `sysproc.isolation.cgroups.limits.Stats`."""
        return {}
