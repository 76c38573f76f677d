"""Small filesystems for tests of what reads them: made by mke2fs and mkfs.erofs, changed byte by byte.

What is changed can have its checksums made right again, so that a reader gets further than to them.
"""

import os
import shutil
import struct
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from sysproc.crc32c import over
from sysproc.isolation.readers.reading import entries_of

MIB = 1 << 20
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "ext4": ("-t", "ext4", "-O", "metadata_csum,64bit,inline_data", "-b", "1024"),
    "ext4 without checksums": ("-t", "ext4", "-O", "^metadata_csum,meta_bg,^resize_inode", "-b", "4096"),
    "ext2": ("-t", "ext2", "-b", "1024"),
}
# What mkfs.erofs is told besides.
EROFS_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "erofs": (),
    "erofs by lz4": ("-zlz4",),
    "erofs by lz4hc": ("-zlz4hc,9",),
    "erofs with a full index": ("-zlz4", "-Elegacy-compress"),
    "erofs with large blocks": ("-zlz4", "-C65536"),
}
NOT_READ = "erofs with large blocks"
SUPERBLOCK = 1024
MOST_BYTES, MOST_ENTRIES = 64 * MIB, 10_000
_CHECKSUMS = 0x400


def kind_of(name: str) -> str:
    """What the readers call it."""
    return name.split(maxsplit=1)[0]


def needed(tool: str) -> None:
    """Skip the test where it is not installed."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")


@cache
def image(name: str) -> bytes:
    """A filesystem of 2 MiB with some of everything in it."""
    with TemporaryDirectory() as directory:
        content, made = Path(directory, "content"), Path(directory, "image")
        fill(content)
        if name in EROFS_OPTIONS:
            command: list[str | Path] = ["mkfs.erofs", "--quiet", "-T1", *EROFS_OPTIONS[name], made, content]
        else:
            made.touch()
            os.truncate(made, 2 * MIB)
            command = ["mke2fs", "-q", "-F", *OPTIONS[name], "-N", "256", "-d", content, made]
        needed(str(command[0]))
        subprocess.run(command, check=True, capture_output=True)
        return made.read_bytes()


def fill(content: Path) -> None:
    (content / "d/many").mkdir(parents=True)
    (content / "small").write_text("hi")
    (content / "large").write_bytes(bytes(range(256)) * 1500)
    with (content / "sparse").open("wb") as file:
        for at in range(0, 400_000, 40_000):
            file.seek(at)
            file.write(b"x" * 3000)
    (content / "text").write_text("".join(f"line {number}\n" for number in range(20_000)))
    (content / "link").symlink_to("small")
    (content / "d/long").symlink_to("x/" * 100)
    os.link(content / "large", content / "d/hard")
    for number in range(60):
        (content / f"d/many/a name that is rather long {number}").touch()


@cache
def _memory_fd() -> int:
    return os.memfd_create("image")


def memory_file(data: bytes, size: int | None = None, tail: bytes = b"") -> int:
    """A file of this size that begins and ends with this, until the next one is asked for: a new one takes longer."""
    fd = _memory_fd()
    os.ftruncate(fd, 0)  # so that what is not written is zeros
    os.ftruncate(fd, len(data) if size is None else size)
    os.pwrite(fd, data, 0)
    if tail:
        os.pwrite(fd, tail, os.fstat(fd).st_size - len(tail))
    return fd


def read(name: str, data: bytes) -> Mapping[bytes, bytes]:
    """Read everything that is in it, as the unpacker does; the contents of its files. OSError as the readers say."""
    entries, total = entries_of(kind_of(name), memory_file(data), 0, len(data)), 0
    found: dict[bytes, bytes] = {}
    for entry in entries:
        parts = [block for _, length in entry.segments for block in entries.data(length)]
        total += sum(map(len, parts))
        found[entry.name] = b"".join(parts)
        assert total <= MOST_BYTES and len(found) <= MOST_ENTRIES, "it becomes far more than it is"
    return found


def changed(data: bytes, at: int, value: int, form: str) -> bytes:
    """With a number in another place, and the checksum of the superblock made right."""
    return summed(data[:at] + struct.pack(form, value) + data[at + struct.calcsize(form) :])


def summed(data: bytes) -> bytes:
    """With the superblock's checksum as it would have to be."""
    block = data[SUPERBLOCK : SUPERBLOCK + 1020]
    if not struct.unpack_from("<I", block, 0x64)[0] & _CHECKSUMS:
        return data
    return data[: SUPERBLOCK + 1020] + struct.pack("<I", over(0xFFFFFFFF, block)) + data[SUPERBLOCK + 1024 :]


def erofs_summed(data: bytes) -> bytes:
    """The same of erofs: over the rest of its first block."""
    end = 1 << data[SUPERBLOCK + 12] if 9 <= data[SUPERBLOCK + 12] <= 16 else 4096
    covered = data[SUPERBLOCK : SUPERBLOCK + 4] + bytes(4) + data[SUPERBLOCK + 8 : end]
    return data[: SUPERBLOCK + 4] + struct.pack("<I", over(0xFFFFFFFF, covered)) + data[SUPERBLOCK + 8 :]
