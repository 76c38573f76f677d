"""Each xfs is told of the room on the host's disk by itself: one that fails, or waits, holds up no other.

The jobs are played; the real ones are in `tests.kernel.linux.test_reserved_room`.
"""

import asyncio
import errno
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from sysproc import disk_xfs
from sysproc.disk_xfs import DiskXfs
from sysproc.isolation.launcher_client import ChildFailed, Launcher


class Jobs(Launcher):
    """Does what each device is told to: an errno, not changed, or it waits for ever, also once it is killed."""

    def __init__(self) -> None:
        self.does: dict[str, int | str] = {}
        self.asked: list[tuple[str, bool]] = []

    async def run_job(
        self, job: str, values: Mapping[str, Any], fds: Sequence[int] = (), **_: Any
    ) -> Mapping[str, Any]:
        assert job == "reserve_xfs"
        self.asked.append((values["name"], values["all"]))
        match self.does.get(values["name"]):
            case int(number):
                raise ChildFailed(number, values["name"])
            case "waits":
                try:
                    await asyncio.get_running_loop().create_future()
                finally:
                    await asyncio.get_running_loop().create_future()
            case "unchanged":
                return {"changed": False}
            case _:
                pass
        return {"changed": True}


@pytest.fixture
def mounts(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What is mounted."""
    known = {"loop1": 1, "loop2": 2, "loop3": 3}
    monkeypatch.setattr(disk_xfs, "mounted_from", lambda _: dict(known))
    monkeypatch.setattr(disk_xfs, "PAUSE_S", 0.0)
    return known


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


@pytest.fixture
def xfs(jobs: Jobs, mounts: dict[str, int]) -> DiskXfs:
    return DiskXfs(jobs, lambda name: name != "loop9")


async def looked(xfs: DiskXfs, jobs: Jobs, *, closed: bool) -> set[tuple[str, bool]]:
    """Whom a look asks."""
    jobs.asked.clear()
    xfs.find()
    xfs.settle(closed=closed)
    for _ in range(5):
        await asyncio.sleep(0)
    return set(jobs.asked)


async def test_each_is_closed_once_and_opened_again(xfs: DiskXfs, jobs: Jobs, mounts: dict[str, int]) -> None:
    mounts["loop9"] = 9
    assert await looked(xfs, jobs, closed=True) == {("loop1", True), ("loop2", True), ("loop3", True)}
    assert await looked(xfs, jobs, closed=True) == set()
    mounts["loop2"] = 20
    assert await looked(xfs, jobs, closed=True) == {("loop2", True)}
    assert await looked(xfs, jobs, closed=False) == {("loop1", False), ("loop2", False), ("loop3", False)}
    mounts["loop4"] = 4
    assert await looked(xfs, jobs, closed=False) == set()


async def test_what_a_daemon_before_has_left_is_opened(xfs: DiskXfs, jobs: Jobs) -> None:
    assert await looked(xfs, jobs, closed=False) == {("loop1", False), ("loop2", False), ("loop3", False)}
    assert await looked(xfs, jobs, closed=False) == set()


@pytest.mark.parametrize("number", [errno.EIO, errno.EUCLEAN])
async def test_one_that_fails_is_told_of_once_and_tried_again(xfs: DiskXfs, jobs: Jobs, number: int) -> None:
    jobs.does["loop1"] = number
    with capture_logs() as logs:
        await looked(xfs, jobs, closed=True)
        assert await looked(xfs, jobs, closed=True) == {("loop1", True)}
        assert [(line["device"], line["errno"]) for line in logs] == [("loop1", number)]
        del jobs.does["loop1"]
        assert await looked(xfs, jobs, closed=True) == {("loop1", True)}
        assert await looked(xfs, jobs, closed=True) == set()
        jobs.does["loop1"] = number
        assert ("loop3", False) in await looked(xfs, jobs, closed=False)
    assert [line["closed"] for line in logs] == [True, False]


async def test_one_that_was_not_changed_is_not_taken_for_closed(xfs: DiskXfs, jobs: Jobs) -> None:
    jobs.does["loop1"] = "unchanged"
    with capture_logs() as logs:
        await looked(xfs, jobs, closed=True)
        assert await looked(xfs, jobs, closed=True) == {("loop1", True)}
    assert logs == []


async def test_one_that_failed_is_not_tried_at_every_look(
    xfs: DiskXfs, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_xfs, "PAUSE_S", 1000.0)
    jobs.does["loop1"] = errno.EIO
    await looked(xfs, jobs, closed=True)
    assert await looked(xfs, jobs, closed=True) == set()


async def test_one_that_is_frozen_holds_up_no_other_and_not_the_end(
    xfs: DiskXfs, jobs: Jobs, mounts: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_xfs, "END_S", 0.01)
    jobs.does["loop1"] = "waits"
    await looked(xfs, jobs, closed=True)
    assert await looked(xfs, jobs, closed=False) == {("loop2", False), ("loop3", False)}
    del mounts["loop1"]
    assert await looked(xfs, jobs, closed=True) == {("loop2", True), ("loop3", True)}
    async with asyncio.timeout(20):
        await xfs.end()
