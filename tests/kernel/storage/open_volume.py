"""An encrypted volume in a file of the disk, opened by its FUSE process, with a loop device and ext4 on it.

What is true of all that is in the tests beside this module.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sysproc.linux.mounts import new_mount
from sysproc.storage.decrypted.opening import Decrypted, start
from sysproc.storage.luks.key_derivation import Cost
from sysproc.storage.luks.region import Region
from sysproc.storage.luks.volume import format_volume
from tests.waiting import is_zombie, wait_until

SECRET = b"correct horse battery staple"
CHEAP = Cost(passes=4, memory_kib=32, lanes=1)
DATA_BYTES = 48 << 20
BEFORE = 1 << 20

needs_fuse = pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="this kernel has no FUSE (/dev/fuse)")


@dataclass(frozen=True)
class Disk:
    """A loop device on the decrypted file, whose fds are closed with the stack."""

    decrypted: Decrypted
    device_fd: int
    device: str


@contextmanager
def volume_file(path: Path, sector_size: int = 4096) -> Iterator[Region]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, BEFORE + (16 << 20) + DATA_BYTES)
        region = Region(fd, BEFORE, (16 << 20) + DATA_BYTES)
        format_volume(region, memoryview(SECRET), cost=CHEAP, sector_size=sector_size)
        yield region
    finally:
        os.close(fd)


def pipe_with(secret: bytes) -> int:
    reader, writer = os.pipe()
    os.write(writer, secret)
    os.close(writer)
    return reader


def opened(region: Region, secret: bytes = SECRET) -> Decrypted:
    reader = pipe_with(secret)
    try:
        return start(region, reader)
    finally:
        os.close(reader)


@contextmanager
def decrypted_file(region: Region) -> Iterator[Decrypted]:
    """Open; at the end its process ends by itself."""
    decrypted = opened(region)
    try:
        yield decrypted
    finally:
        os.close(decrypted.fd)
        ended(decrypted.pid)


def ended(pid: int) -> int:
    """Wait for the end of the process; how it ended."""
    wait_until(lambda: is_zombie(pid), "the process of the volume ends with the last use of its file")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@contextmanager
def disk(region: Region) -> Iterator[Disk]:
    with ExitStack() as stack:
        decrypted = opened(region)
        stack.callback(ended, decrypted.pid)
        try:
            device_fd, device = decrypted.attach()
        finally:
            os.close(decrypted.fd)
        stack.callback(released, device)
        stack.callback(os.close, device_fd)
        yield Disk(decrypted, device_fd, device)


def released(device: str) -> None:
    wait_until(lambda: not Path(f"/sys/block/{device[5:]}/loop").exists(), f"{device} is free again")


def mke2fs(device: str) -> None:
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-E", "nodiscard", device], check=True)


@contextmanager
def ext4(device: str) -> Iterator[Path]:
    """Mounted, attached nowhere."""
    mount_fd = new_mount("ext4", {"source": device})
    try:
        yield Path(f"/proc/self/fd/{mount_fd}")
    finally:
        os.close(mount_fd)


def fsck(device: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["e2fsck", "-f", "-n", device], capture_output=True, text=True, check=False)
