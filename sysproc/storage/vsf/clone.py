"""Fresh and cloned VSF files: sparse, with identifiers of their own, whole or not there.

    unnamed file (O_TMPFILE) -> contents -> new GPT and filesystem UUIDs -> fdatasync -> linkat to its name

A crash leaves nothing behind: a file without a name goes with its last fd. Growing the filesystem inside a file is a
job of `sysproc.isolation.jobs`.
"""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sysproc.errors import ResourceExhausted
from sysproc.failpoints import failpoint
from sysproc.sparse import copy_sparse
from sysproc.storage.vsf.ext4_uuid import set_uuid
from sysproc.storage.vsf.gpt import Gpt, read_gpt, write_backup, write_gpt, write_primary


@contextmanager
def new_file(target: Path, *, durable: bool = True) -> Iterator[int]:
    """An unnamed file that gets its name at the end of the block; on an error it never had one.

    durable: its bytes are on the disk before its name is.
    """
    with unnamed_file(target.parent) as fd, disk_full_as_domain_error(target):
        yield fd
        if durable:
            os.fdatasync(fd)
        failpoint("storage.vsf.before_link")
        give_name(fd, target)


@contextmanager
def unnamed_file(directory: Path) -> Iterator[int]:
    """A file on the disk of this directory that is gone after the block, unless it was given a name."""
    with disk_full_as_domain_error(directory / "new file"):
        fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def give_name(fd: int, target: Path) -> None:
    """linkat(2) with AT_SYMLINK_FOLLOW on /proc/self/fd, as open(2) says for O_TMPFILE.

    os.link makes a linkat of it only when it is given a directory's fd.
    """
    directory = os.open(target.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.link(f"/proc/self/fd/{fd}", target.name, dst_dir_fd=directory, follow_symlinks=True)
    finally:
        os.close(directory)


@contextmanager
def disk_full_as_domain_error(target: Path) -> Iterator[None]:
    """ENOSPC and EDQUOT are the caller's to know."""
    try:
        yield
    except OSError as failure:
        if failure.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ResourceExhausted(
            "The disk with the state directory is full.",
            details=f"{target.name} could not be written.",
            resolution="Free some space there, or destroy containers that are not needed.",
            reason="DISK_FULL",
        ) from failure


def clone_vsf(source: Path, target: Path, *, durable: bool = True) -> None:
    """Make a copy that is a disk of its own: every GUID, and the ext4's UUID, are new. Raises ResourceExhausted."""
    source_fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with new_file(target, durable=durable) as fd:
            copy_sparse(source_fd, fd)
            failpoint("storage.vsf.after_copy")
            gpt = read_gpt(fd).with_new_guids()
            write_gpt(fd, gpt)
            set_uuid(fd, gpt.partitions[0].offset_bytes, uuid.uuid4())
    finally:
        os.close(source_fd)


def sync_directory(path: Path) -> None:
    """The names in it are on the disk when this returns."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fresh_vsf(fd: int, gpt: Gpt) -> None:
    """Make an empty file a sparse disk of this layout."""
    os.ftruncate(fd, gpt.disk_bytes)
    write_gpt(fd, gpt)


def grow_table(fd: int, disk_bytes: int) -> Gpt:
    """Make the file larger and let its last partition reach to the new end; the filesystem in it is not touched."""
    os.ftruncate(fd, disk_bytes)
    gpt = read_gpt(fd).grown(disk_bytes)
    write_gpt(fd, gpt)
    return gpt


def grow_table_in_use(fd: int, disk_bytes: int) -> Gpt:
    """The same for a file that is in use, durable: at each moment one of the two copies is whole."""
    os.ftruncate(fd, disk_bytes)
    return grow_table_there(fd, disk_bytes)


def grow_table_there(fd: int, disk_bytes: int) -> Gpt:
    """The same for a file, or a block device, that is as large already."""
    gpt = read_gpt(fd).grown(disk_bytes)
    write_backup(fd, gpt)
    os.fsync(fd)
    failpoint("storage.vsf.after_backup_table")
    write_primary(fd, gpt)
    os.fdatasync(fd)
    return gpt
