"""What volumes do between two looks at the kernel: a pid is another's, a device is gone, a call is cancelled."""

import asyncio
import os
import signal
import threading
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sysproc.isolation.volumes.decrypted_devices import DeviceName
from sysproc.storage.state_dir import StateDir
from sysproc.storage.volumes import FILESYSTEMS, Filesystem, VolumeRow
from sysproc.volume_checks import VolumeChecks
from sysproc.volume_devices import VolumeDevices, name_for
from sysproc.volume_growth import VolumeGrowth, tell


def row(**values: Any) -> VolumeRow:
    defaults: dict[str, Any] = {
        "id": 1,
        "owner_id": None,
        "name": "data",
        "size_bytes": 64 << 20,
        "filesystems": (Filesystem("data", "ext4", 62 << 20, ""),),
        "on_destroy": "delete",
        "overcommit": False,
        "origin": "made",
        "state": "ready",
        "grown_from": None,
        "created_at": 0.0,
        "created_revision": 1,
        "revision": 1,
    }
    return VolumeRow(**{**defaults, **values})


@pytest.mark.parametrize("looks", [[1, 1], [1, 0]])
def test_who_has_taken_over_a_pid_is_told_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: list[int]
) -> None:
    left, told = [[os.getpid()] * one for one in looks], list[signal.Signals]()
    monkeypatch.setattr("sysproc.volume_growth.processes_with", lambda _: left.pop(0))
    monkeypatch.setattr("sysproc.volume_growth.pidfd_send_signal", lambda _, number: told.append(number))
    before = len(os.listdir("/proc/self/fd"))
    tell(tmp_path, signal.SIGWINCH)
    assert told == [signal.SIGWINCH] * looks[1] and len(os.listdir("/proc/self/fd")) == before


async def test_a_device_that_was_found_when_its_call_was_cancelled_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, going, fds = threading.Event(), threading.Event(), list[int]()

    def found(_: DeviceName) -> tuple[int, str]:
        begun.set()
        going.wait()
        fds.append(os.open(tmp_path, os.O_RDONLY | os.O_CLOEXEC))
        return fds[0], "/dev/loop0"

    monkeypatch.setattr("sysproc.volume_growth.found", found)
    none: Any = None
    task = asyncio.ensure_future(VolumeGrowth(none, none, none)._widen(row(), none, none, None))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    going.set()
    with suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fds[0])


def test_a_mapping_that_is_gone_by_now_is_not_direct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state_dir, volume = StateDir(tmp_path), row(encryption=FILESYSTEMS)
    file = state_dir.volume("0000000000000001")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    present = {"/dev/dm-987654": name_for(volume, file, 0)}
    monkeypatch.setattr("sysproc.volume_devices.named_devices", lambda: present)
    assert not VolumeDevices(state_dir).is_direct(volume, 0)


class Looking(VolumeChecks):
    """Finds two, and notes whether the volume was still locked when it ended."""

    ended: list[bool]

    async def _look(self, parts: Any, fd: int) -> AsyncGenerator[Any, None]:
        try:
            yield SimpleNamespace(), "one"
            yield SimpleNamespace(), "two"
        finally:
            self.ended = [self._host.volume_files.lock(1).locked()]


async def test_a_check_that_nobody_listens_to_ends_before_it_lets_go_of_the_volume(tmp_path: Path) -> None:
    lock = asyncio.Lock()

    async def read(_: Any) -> VolumeRow:
        return row()

    files = SimpleNamespace(
        lock=lambda _: lock, check_unused=lambda _: None, unlocking=None, path=lambda _: tmp_path / "file"
    )
    (tmp_path / "file").touch()
    host: Any = SimpleNamespace(volume_files=files, database=SimpleNamespace(read=read), jails=None)
    checks = Looking(host)
    answers: Any = checks.check(row(), repair=False)
    assert await anext(answers) == "one"
    await answers.aclose()
    assert checks.ended == [True] and not lock.locked()
