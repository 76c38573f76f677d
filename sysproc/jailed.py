"""Jobs in a jail: each has uids that nobody else has, for as long as it runs; its filter; where it builds.

The jails are `sysproc.isolation.jail` and `sysproc.isolation.tool_jail`.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sysproc.isolation.launcher_client import Launcher, Progress
from sysproc.isolation.seccomp_profiles import compile_profile
from sysproc.isolation.uid_ranges import UidRanges
from sysproc.to_end import handed_over, to_end

JAIL_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class Jails:
    """What a host makes jails from. frame: see `launcher_protocol`; owner: by which name uids are claimed.

    After a crash what was claimed is free with the next start (`reclaim`).
    """

    launcher: Launcher
    uid_ranges: UidRanges
    frame: Path
    owner: str

    async def run(
        self, job: str, values: Mapping[str, Any], fds: Sequence[int], progress: Progress | None = None
    ) -> Mapping[str, Any]:
        """Run a job; its result. Raises ChildFailed, Unavailable, DeadlineExceeded."""
        profile = compile_profile("strict", os.uname().machine).hex()
        uids = await handed_over(partial(self.uid_ranges.claim, self.owner), self.uid_ranges.release)
        try:
            jail = {"uid_base": uids.base, "uid_count": uids.size, "frame": str(self.frame), "seccomp_filter": profile}
            return await self.launcher.run_job(
                job, {**jail, **values}, fds, timeout_s=JAIL_TIMEOUT_S, progress=progress
            )
        finally:
            await to_end(self.uid_ranges.release, uids)

    async def reclaim(self) -> None:
        """At the start: whatever jails of before a crash have claimed is free."""
        await to_end(self.uid_ranges.reclaim, self.owner)
