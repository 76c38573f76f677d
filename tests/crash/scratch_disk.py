"""A disk whose power can be cut: what it holds at a moment is kept, while what uses it goes on.

    the machine's disk ─ outer.img ─ loop ─ xfs (outer)
                                              ├── disk.img ─ loop, direct I/O ─ xfs (inner): the state directory
                                              └── cut-1.img, …       clones of disk.img, taken under load (FICLONE)

The loop device of disk.img writes past the page cache: so that file holds what a disk would have got, and a clone of
it, which xfs takes between two writes, what it would hold without power. What was only in memory is lost. Not
shown by this: a disk that loses or reorders what it has accepted and was not told to flush.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

from sysproc.linux.files import ficlone
from sysproc.linux.loop import LO_FLAGS_AUTOCLEAR, LO_FLAGS_DIRECT_IO, loop_configure
from sysproc.linux.mounts import MNT_DETACH, mount, umount2

OUTER_BYTES, INNER_BYTES = 12 << 30, 2 << 30


class NoSuchDisk(Exception):
    """It cannot be made here; the text says why."""


class ScratchDisk:
    """The inner filesystem is at `mounted`. A context manager."""

    def __init__(self, directory: Path, inner_bytes: int = INNER_BYTES) -> None:
        self._inner_bytes = inner_bytes
        self._directory, self._stack, self._numbers = directory, ExitStack(), count(1)
        self._outer = directory / "outer"
        self.mounted = directory / "inner"

    def __enter__(self) -> "ScratchDisk":
        with self._stack:
            made(self._directory / "outer.img", OUTER_BYTES)
            self._stack.enter_context(xfs(self._directory / "outer.img", self._outer))
            made(self._outer / "disk.img", self._inner_bytes)
            self._stack.enter_context(xfs(self._outer / "disk.img", self.mounted, LO_FLAGS_DIRECT_IO))
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def cut(self) -> Path:
        """What it holds at this moment, as a file."""
        image = self._outer / f"cut-{next(self._numbers)}.img"
        with image.open("wb") as target, (self._outer / "disk.img").open("rb") as source:
            ficlone(target.fileno(), source.fileno())
        return image

    @contextmanager
    def as_it_was(self, cut: Path) -> Iterator[Path]:
        """A cut, mounted as after power has come back: its journal is replayed."""
        place = self._directory / cut.stem
        with xfs(cut, place):
            yield place
        cut.unlink()


def made(image: Path, size: int) -> None:
    """A new filesystem that shares blocks between files."""
    if shutil.which("mkfs.xfs") is None:
        raise NoSuchDisk("mkfs.xfs is not installed (xfsprogs)")
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True, capture_output=True)


@contextmanager
def xfs(image: Path, place: Path, flags: int = 0) -> Iterator[None]:
    """Mounted; the loop device goes with the mount. Cuts have one UUID all."""
    place.mkdir()
    with image.open("r+b") as file:
        device_fd, device = loop_configure(file.fileno(), offset=0, size=0, flags=LO_FLAGS_AUTOCLEAR | flags)
    try:
        mount(device, place, fstype="xfs", data="nouuid")
    except OSError as failure:
        raise NoSuchDisk(f"this kernel mounts no xfs: {failure}") from failure
    finally:
        os.close(device_fd)
    try:
        yield
    finally:
        umount2(place, MNT_DETACH)
