"""Jails of a launcher of their own, for tests of what runs in them."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sysproc.isolation.launcher_client import Launcher
from sysproc.isolation.launcher_protocol import FRAME_NAME
from sysproc.isolation.uid_ranges import UidRanges
from sysproc.jailed import Jails

_FIRST_UID, _RANGES = 0x70000000, 64


@asynccontextmanager
async def jails() -> AsyncIterator[Jails]:
    """Gone with the block, launcher and all."""
    with tempfile.TemporaryDirectory(prefix="sysproc-test-") as runtime_dir:
        launcher = Launcher(Path(runtime_dir), ())
        await launcher.connect()
        claims = Path(runtime_dir, "uids")
        claims.mkdir()
        uid_ranges = UidRanges(claims, _FIRST_UID, _RANGES)
        try:
            yield Jails(launcher, uid_ranges, Path(runtime_dir, FRAME_NAME), "test")
        finally:
            await launcher.quit()
            await launcher.close()
