"""What containers are made from on this host, as one value that the verbs are given.

Built once by the daemon's wiring (`sysproc.server.daemon`); no decision belongs here.
"""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from sysproc.held_files import HeldFiles
from sysproc.images import Images
from sysproc.isolation.cgroups import CgroupTree
from sysproc.isolation.launcher_client import Launcher
from sysproc.isolation.uid_ranges import UidRanges
from sysproc.jailed import Jails
from sysproc.storage.database import Database
from sysproc.storage.state_dir import StateDir
from sysproc.volume_files import VolumeFiles


@dataclass(frozen=True)
class Sockets:
    """Where the listening socket of each running container goes; the server's relay answers on it.

    add: id, fd, the container's first uid, who besides its root has authority (`sysproc.api_users`).
    gone: the container itself will be, so remove; and who has its authority on other machines is ended, too.
    """

    add: Callable[[int, int, int, str], None]
    remove: Callable[[int], None]
    gone: Callable[[int], None]


@dataclass(frozen=True)
class Host:
    """Database, storage and kernel, as the verbs see them."""

    database: Database
    state_dir: StateDir
    launcher: Launcher
    cgroups: CgroupTree
    uid_ranges: UidRanges
    jails: Jails
    images: Images
    volume_files: VolumeFiles
    sockets: Sockets
    # Of these containers, what is kept of their processes' output, in bytes (`sysproc.exec_output`); blocks.
    output_bytes: Callable[[Collection[int]], int]
    # What is sent and received at the moment; it counts in `output_bytes`.
    exports: HeldFiles[Any]
    imports: HeldFiles[Any]
    # The ids of containers whose storage is limited, so that most processes start without asking the database.
    storage_limited: set[str] = field(default_factory=set)
    # Held from looking at what is used to having used it.
    storage_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    # Held from reading recorded limits to having them in the kernel, so that none is put in force that has changed.
    limits_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def owner(self, container_id: str) -> str:
        """By which name a uid range is claimed for a container: no other daemon on this host has it."""
        return f"{self.state_dir.path}:{container_id}"
