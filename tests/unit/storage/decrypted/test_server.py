"""The answers of the volume's process to the kernel's requests, over a socket in place of /dev/fuse."""

import errno
import os
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from sysproc.linux import fuse
from sysproc.storage.decrypted.sectors import DecryptedSectors
from sysproc.storage.decrypted.server import MAX_WRITE, Serving
from sysproc.storage.luks.metadata import Segment
from sysproc.storage.luks.region import Region

SIZE = 1 << 20


@dataclass
class Watched(DecryptedSectors):
    """Counts what reaches the disk, and fails as it is told to."""

    region: Region
    syncs: int = 0
    failure: OSError | None = field(default=None)

    def __post_init__(self) -> None:
        super().__init__(self.region, Segment(0, None, 0, 4096), memoryview(bytes(range(64))))

    def sync(self) -> None:
        if self.failure:
            raise self.failure
        self.syncs += 1


@dataclass
class Kernel:
    """The other end of the device."""

    sock: socket.socket
    sectors: Watched
    unique: int = 0

    def send(self, opcode: int, body: bytes = b"") -> int:
        self.unique += 1
        length = fuse.IN_HEADER.size + len(body)
        self.sock.send(fuse.IN_HEADER.pack(length, opcode, self.unique, fuse.ROOT_ID, 0, 0, 0, 0, 0) + body)
        return self.unique

    def ask(self, opcode: int, body: bytes = b"") -> tuple[int, bytes]:
        """errno and what follows the header."""
        unique = self.send(opcode, body)
        answer = self.sock.recv(MAX_WRITE + 4096)
        length, number, answered = fuse.OUT_HEADER.unpack_from(answer)
        assert (length, answered) == (len(answer), unique)
        return -number, answer[fuse.OUT_HEADER.size :]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    # The hook and the stack size are for a process of its own.
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(threading, "stack_size", lambda _: 0)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for sock in (ours, theirs):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    fd = os.memfd_create("volume", os.MFD_CLOEXEC)
    os.ftruncate(fd, SIZE)
    sectors = Watched(Region.whole(fd))
    serving = Serving(theirs.fileno(), sectors)
    with ours, theirs:
        yield Kernel(ours, sectors)
        ours.shutdown(socket.SHUT_RDWR)
        serving.wait()
    os.close(fd)


def init(major: int, minor: int, flags: int = 0xFFFF_FFFF) -> bytes:
    return fuse.INIT_IN.pack(major, minor, 131072, flags) + bytes(48)


def test_a_kernel_is_told_of_large_requests_and_nothing_that_we_do_not_do(kernel: Kernel) -> None:
    number, answer = kernel.ask(fuse.INIT, init(7, 45))
    major, minor, _, flags, _, _, max_write, _, max_pages = fuse.INIT_OUT.unpack(answer)
    assert (number, major, minor, max_write, max_pages * 4096) == (0, 7, 31, MAX_WRITE, MAX_WRITE)
    assert flags == fuse.FUSE_ASYNC_READ | fuse.FUSE_BIG_WRITES | fuse.FUSE_ASYNC_DIO | fuse.FUSE_MAX_PAGES


@pytest.mark.parametrize("version", [(6, 99), (8, 0), (7, 30)])
def test_a_kernel_of_another_protocol_is_refused(kernel: Kernel, version: tuple[int, int]) -> None:
    assert kernel.ask(fuse.INIT, init(*version)) == (errno.EPROTO, b"")


def test_each_flush_of_the_kernel_reaches_the_disk(kernel: Kernel) -> None:
    for count in range(1, 4):
        assert kernel.ask(fuse.FSYNC, bytes(16)) == (0, b"")
        assert kernel.sectors.syncs == count


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_an_error_of_the_disk_is_told(kernel: Kernel, number: int) -> None:
    kernel.sectors.failure = OSError(number, "")
    assert kernel.ask(fuse.FSYNC, bytes(16)) == (number, b"")


def test_what_is_written_is_encrypted_and_read_back(kernel: Kernel) -> None:
    data = os.urandom(8192)
    place = fuse.WRITE_IN.pack(0, 4096, len(data))
    assert kernel.ask(fuse.WRITE, place + data) == (0, fuse.WRITE_OUT.pack(len(data)))
    assert kernel.ask(fuse.READ, place) == (0, data)
    stored = os.pread(kernel.sectors.region.fd, 16384, 0)
    assert stored[4096:12288] != data and stored[:4096] == stored[12288:] == bytes(4096)


def test_a_read_behind_the_end_is_short_and_a_write_there_an_error(kernel: Kernel) -> None:
    assert len(kernel.ask(fuse.READ, fuse.READ_IN.pack(0, SIZE - 100, 4096))[1]) == 100
    assert kernel.ask(fuse.READ, fuse.READ_IN.pack(0, SIZE + 4096, 4096)) == (0, b"")
    assert kernel.ask(fuse.WRITE, fuse.WRITE_IN.pack(0, SIZE, 4096) + bytes(4096)) == (errno.EFBIG, b"")


def test_a_file_that_became_shorter_is_an_error_and_not_zeros(kernel: Kernel) -> None:
    os.ftruncate(kernel.sectors.region.fd, SIZE // 2)
    assert kernel.ask(fuse.READ, fuse.READ_IN.pack(0, SIZE // 2, 4096)) == (errno.EIO, b"")


def test_the_file_has_its_size_and_belongs_to_nobody_else(kernel: Kernel) -> None:
    number, answer = kernel.ask(fuse.GETATTR, bytes(16))
    _, _, inode, size, _, mode, links, uid, *_ = fuse.ATTR_OUT.unpack(answer)
    assert (number, inode, size, mode, links, uid) == (0, 1, SIZE, 0o100600, 1, os.geteuid())


@pytest.mark.parametrize(
    ("opcode", "number"), [(fuse.FALLOCATE, errno.EOPNOTSUPP), (fuse.SETATTR, errno.EOPNOTSUPP), (4711, errno.ENOSYS)]
)
def test_holes_other_sizes_and_what_is_not_known_are_refused(kernel: Kernel, opcode: int, number: int) -> None:
    assert kernel.ask(opcode, struct.pack("<32x")) == (number, b"")


def test_what_expects_no_answer_gets_none(kernel: Kernel) -> None:
    for opcode in (fuse.FORGET, fuse.BATCH_FORGET, fuse.INTERRUPT):
        kernel.send(opcode, bytes(16))
    assert kernel.ask(fuse.STATFS)[0] == 0
