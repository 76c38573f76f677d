"""Loop devices on a real kernel: a flush of one is an fsync of its file, whatever was done to the device before."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from sysproc.linux import loop
from sysproc.linux.loop import LO_FLAGS_AUTOCLEAR, LO_FLAGS_READ_ONLY, LOOP_CONTROL, loop_configure

LOOP_CTL_ADD, LOOP_CTL_REMOVE = 0x4C80, 0x4C81
SIZE = 8 << 20


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The number of a device that nobody else is given: those of low numbers are free for all."""
    control = os.open(LOOP_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    number = 100_000 + os.getpid()
    with ExitStack() as stack:
        stack.callback(os.close, control)
        fcntl.ioctl(control, LOOP_CTL_ADD, number)
        stack.callback(Path(f"/dev/loop{number}").unlink, missing_ok=True)
        stack.callback(fcntl.ioctl, control, LOOP_CTL_REMOVE, number)
        monkeypatch.setattr(loop, "loop_ctl_get_free", lambda: number)
        yield number


def cache_of(number: int) -> Path:
    """What the kernel thinks that the device does with what is written, and lets one change."""
    return Path(f"/sys/block/loop{number}/queue/write_cache")


@contextmanager
def configured(file: Path, flags: int = 0) -> Iterator[None]:
    """The device, over this file."""
    with file.open("r+b") as backing:
        device_fd, _ = loop_configure(backing.fileno(), offset=0, size=0, flags=LO_FLAGS_AUTOCLEAR | flags)
    try:
        yield
    finally:
        os.close(device_fd)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    with (made := tmp_path / "disk").open("wb") as opened:
        opened.truncate(SIZE)
    return made


def test_a_device_whose_flushes_somebody_has_turned_off_passes_them_on_again(device: int, file: Path) -> None:
    with configured(file):
        assert cache_of(device).read_text() == "write back\n"
        cache_of(device).write_text("write through")
    with configured(file):
        assert cache_of(device).read_text() == "write back\n"


def test_a_read_only_device_has_nothing_to_flush(device: int, file: Path) -> None:
    with configured(file, LO_FLAGS_READ_ONLY):
        assert cache_of(device).read_text() == "write through\n"
