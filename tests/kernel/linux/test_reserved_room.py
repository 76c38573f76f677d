"""Mounted filesystems that give out no more room, and then again: ext4 by sysfs, xfs by its ioctl."""

import errno
import fcntl
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sysproc.linux.ext4 import MountedExt4
from sysproc.linux.loop import LO_FLAGS_AUTOCLEAR, loop_configure
from sysproc.linux.mounted_filesystems import mounted_from
from sysproc.linux.mounts import mount, umount2
from sysproc.linux.xfs import reserve_all_blocks, reserve_usual_blocks, reserved_blocks

BYTES = 320 << 20
PIECE = bytes(1 << 18)
# With blocks as the service's own have.
MKFS = {"ext4": ("-b", "4096"), "xfs": ()}


@contextmanager
def mounted(directory: Path, fstype: str) -> Iterator[tuple[Path, str]]:
    """A new filesystem, and the name of its device."""
    if shutil.which(f"mkfs.{fstype}") is None or fstype not in Path("/proc/filesystems").read_text():
        pytest.skip(f"no {fstype} here")
    image, top = directory / "image", directory / "top"
    top.mkdir()
    with image.open("w+b") as file:
        file.truncate(BYTES)
        subprocess.run([f"mkfs.{fstype}", "-q", *MKFS[fstype], image], check=True)
        fd, device = loop_configure(file.fileno(), offset=0, size=0, flags=LO_FLAGS_AUTOCLEAR)
    try:
        mount(device, top, fstype=fstype)
    finally:
        os.close(fd)
    try:
        yield top, Path(device).name
    finally:
        umount2(top, 0)


def check_closed_and_open_again(top: Path, close: Callable[[], None], reopen: Callable[[], None]) -> None:
    """Nothing more fits, what is there is written over, and deleted; then all is as it was."""
    (top / "kept").write_bytes(PIECE)
    (top / "gone").write_bytes(PIECE)
    os.sync()
    free = free_bytes(top)
    close()
    with pytest.raises(OSError) as refused:
        write_synced(top / "new")
    assert refused.value.errno == errno.ENOSPC
    with (top / "kept").open("r+b") as file:
        file.write(PIECE)
        os.fsync(file.fileno())
    (top / "gone").unlink()
    reopen()
    write_synced(top / "new")
    os.sync()
    assert abs(free_bytes(top) - free) < 2 * len(PIECE)


def free_bytes(top: Path) -> int:
    """For whoever writes to it."""
    found = os.statvfs(top)
    return found.f_bavail * found.f_frsize


def write_synced(file: Path) -> None:
    with file.open("wb") as opened:
        opened.write(PIECE)
        opened.flush()
        os.fsync(opened.fileno())


def test_an_ext4_gives_out_no_more_room_and_then_again(tmp_path: Path) -> None:
    with mounted(tmp_path, "ext4") as (top, name), MountedExt4(name) as known:
        check_closed_and_open_again(top, known.reserve_all_clusters, known.reserve_usual_clusters)
        assert known.delayed_allocation_bytes() == 0


def test_an_xfs_gives_out_no_more_room_and_then_again(tmp_path: Path) -> None:
    with mounted(tmp_path, "xfs") as (top, _):
        fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
        try:
            usual = reserved_blocks(fd)
            check_closed_and_open_again(top, lambda: reserve_all_blocks(fd), lambda: reserve_usual_blocks(fd))
            assert reserved_blocks(fd) == usual > 0
        finally:
            os.close(fd)


JOB = """
import sys
from sysproc.isolation.volumes.reserve import reserve_xfs
try:
    print(reserve_xfs({"name": sys.argv[1], "inode": int(sys.argv[2]), "all": True}, (), None)["changed"])
except OSError as failure:
    print("errno", failure.errno)
"""
XFS_IOC_GOINGDOWN, XFS_FSOP_GOING_FLAGS_NOLOGFLUSH = 0x8004587D, 2


def job_said(name: str, inode: int) -> str:
    """What it does; in a process of its own, as it is: it leaves the mount namespace."""
    command = [sys.executable, "-c", JOB, name, str(inode)]
    return subprocess.run(command, capture_output=True, check=True, text=True, timeout=60).stdout.strip()


def test_a_mount_that_is_gone_is_told_from_the_next_one_of_the_same_device(tmp_path: Path) -> None:
    with mounted(tmp_path, "ext4") as (_, name):
        first, known = mounted_from("ext4")[name], MountedExt4(name)
        (tmp_path / "again").mkdir()
        mount(f"/dev/{name}", tmp_path / "again", fstype="ext4")
        umount2(tmp_path / "again", 0)
        assert mounted_from("ext4")[name] == first
    with known, pytest.raises(OSError) as gone:
        known.delayed_allocation_bytes()
    assert gone.value.errno == errno.ENODEV
    assert mounted_from("ext4").get(name) != first


def test_the_job_fails_at_an_xfs_that_has_shut_down_and_passes_over_one_that_is_not_it(tmp_path: Path) -> None:
    with mounted(tmp_path, "xfs") as (top, name):
        inode = mounted_from("xfs")[name]
        assert job_said(name, inode) == "True"
        assert job_said(name, inode + 1) == "False"
        fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.ioctl(fd, XFS_IOC_GOINGDOWN, struct.pack("=I", XFS_FSOP_GOING_FLAGS_NOLOGFLUSH))
        os.close(fd)
        assert job_said(name, inode) in (f"errno {errno.EIO}", f"errno {errno.EUCLEAN}")
