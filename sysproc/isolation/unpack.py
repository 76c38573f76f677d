"""Unpacking a tar, plain or gzip, into the root directory of this process: inside the jail only.

The process's root is the new filesystem, so that no path, link or `..` of the archive leads out of it. Kept: owners,
modes, times, links, extended attributes where the kernel allows them. Devices are left out and counted. A broken
archive is OSError(EBADMSG). How the jail is made is in `sysproc.isolation.jail`.
"""

import errno
import gzip
import io
import os
import posixpath
import shutil
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import IO

PROGRESS_INTERVAL_S = 0.2
COPY_BYTES = 1 << 20
MAX_ID = 65535
_GZIP_MAGIC = b"\x1f\x8b"
_XATTR_PREFIX = "SCHILY.xattr."
# Below a link to nowhere or to a file, in a loop of links, with a name that is too long.
_IMPOSSIBLE = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
_NO_SUCH_ATTRIBUTE = (errno.EOPNOTSUPP, errno.EPERM, errno.EACCES, errno.EINVAL)


@dataclass
class Counts:
    """What was unpacked so far."""

    entries: int = 0
    bytes: int = 0
    skipped_devices: int = 0
    skipped_attributes: int = 0


def unpack_archive(fd: int, progress: Callable[[dict[str, int]], object]) -> dict[str, int]:
    """Unpack everything; the counts. OSError: EBADMSG (no tar, broken), ENOSPC (it does not fit), EINVAL (ids)."""
    counts, told = Counts(), time.monotonic()
    directories: list[tarfile.TarInfo] = []
    with broken_archive_as_oserror(), opened(fd) as archive:
        for member in archive:
            unpack_member(archive, member, counts)
            if member.isdir():
                directories.append(member)
            if time.monotonic() - told > PROGRESS_INTERVAL_S:
                progress(asdict(counts))
                told = time.monotonic()
    for directory in reversed(directories):
        set_times(directory, inside(directory.name))
    return asdict(counts)


@contextmanager
def broken_archive_as_oserror() -> Iterator[None]:
    """What the readers raise for input that is no archive, as one errno."""
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, UnicodeError, ValueError, OverflowError) as why:
        raise OSError(errno.EBADMSG, "broken archive", f"broken archive: {why}") from None


@contextmanager
def opened(fd: int) -> Iterator[tarfile.TarFile]:
    """The archive as a stream; what follows its end is read too, so that the sender never meets a closed pipe."""
    with open(fd, "rb", buffering=COPY_BYTES) as raw:
        magic = raw.peek(2)[:2] if isinstance(raw, io.BufferedReader) else b""
        stream: IO[bytes] = gzip.GzipFile(fileobj=raw) if magic == _GZIP_MAGIC else raw  # type: ignore[assignment]  # reads alike
        with tarfile.open(fileobj=stream, mode="r|", errorlevel=2) as archive:
            yield archive
        while stream.read(COPY_BYTES):
            pass


def inside(name: str) -> str:
    """The path in the new root: absolute, without `..`."""
    if "\0" in name:
        raise OSError(errno.EBADMSG, "NUL in a name", f"broken archive: NUL in the name {name!r}")
    return posixpath.normpath("/" + name)


def unpack_member(archive: tarfile.TarFile, member: tarfile.TarInfo, counts: Counts) -> None:
    """One entry, whatever kind it is. EBADMSG for one that contradicts those before it, or no filesystem takes."""
    try:
        _unpack_member(archive, member, counts)
    except OSError as failure:
        if failure.errno not in _IMPOSSIBLE:
            raise
        text = f"broken archive: {member.name[:200]!r}: {failure.strerror}"
        raise OSError(errno.EBADMSG, "impossible entry", text) from None


def _unpack_member(archive: tarfile.TarFile, member: tarfile.TarInfo, counts: Counts) -> None:
    path = inside(member.name)
    counts.entries += 1
    if member.ischr() or member.isblk():
        counts.skipped_devices += 1
        return
    make_parents(path)
    if member.isdir():
        make_directory(path)
    else:
        remove_what_is_there(path)
        make(archive, member, path, counts)
    if not member.islnk():
        set_owner_mode_attributes(member, path, counts)


def make(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str, counts: Counts) -> None:
    """Anything but a directory or a device."""
    if member.issym():
        os.symlink(member.linkname, path)
    elif member.islnk():
        make_hard_link(member, path)
    elif member.isfifo():
        os.mkfifo(path, 0o600)
    elif member.isfile():
        counts.bytes += write_file(archive, member, path)
    else:
        raise OSError(errno.EBADMSG, "unknown", f"broken archive: unknown kind of entry {member.name!r}")


def make_parents(path: str) -> None:
    """Directories that the archive does not mention have mode 755 and belong to root."""
    parent = posixpath.dirname(path)
    if not os.path.isdir(parent):
        os.makedirs(parent, 0o755, exist_ok=True)


def make_directory(path: str) -> None:
    """A directory that is there already is kept, a link to one as well; anything else gives way."""
    if path == "/" or os.path.isdir(path):
        return
    remove_what_is_there(path)
    os.mkdir(path, 0o755)


def remove_what_is_there(path: str) -> None:
    """A later entry of the same name wins."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except IsADirectoryError:
        shutil.rmtree(path)


def make_hard_link(member: tarfile.TarInfo, path: str) -> None:
    """To an entry that came before, and to nothing else."""
    try:
        os.link(inside(member.linkname), path, follow_symlinks=False)
    except FileNotFoundError:
        text = f"broken archive: {member.name!r} is a hard link to {member.linkname!r}, which is not in it"
        raise OSError(errno.EBADMSG, "dangling hard link", text) from None


def write_file(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> int:
    """The contents of a regular file; its size. Zeros become holes."""
    source = archive.extractfile(member)
    if source is None:
        raise OSError(errno.EBADMSG, "no data", f"broken archive: {member.name!r} has no data")
    with source, open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as target:
        while block := source.read(COPY_BYTES):
            if block.count(0) == len(block):
                target.seek(len(block), os.SEEK_CUR)
            else:
                target.write(block)
        target.truncate(member.size)
    return member.size


def set_owner_mode_attributes(member: tarfile.TarInfo, path: str, counts: Counts) -> None:
    """In the order that the kernel needs: a chown clears set-id bits and capabilities."""
    if not (0 <= member.uid <= MAX_ID and 0 <= member.gid <= MAX_ID):
        text = f"{member.name!r} belongs to {member.uid}:{member.gid}, and a container has the ids 0 to {MAX_ID}"
        raise OSError(errno.EINVAL, "id out of range", text)
    os.chown(path, member.uid, member.gid, follow_symlinks=False)
    if not member.issym():
        os.chmod(path, member.mode & 0o7777)
    for name, value in member.pax_headers.items():
        if name.startswith(_XATTR_PREFIX):
            set_attribute(path, name.removeprefix(_XATTR_PREFIX), value, counts)
    if not member.isdir():
        set_times(member, path)


def set_attribute(path: str, name: str, value: str, counts: Counts) -> None:
    """An extended attribute; one that a container's root may not set is left out and counted."""
    try:
        os.setxattr(path, name, value.encode("utf-8", "surrogateescape"), follow_symlinks=False)
    except OSError as failure:
        if failure.errno not in _NO_SUCH_ATTRIBUTE:
            raise
        counts.skipped_attributes += 1


def set_times(member: tarfile.TarInfo, path: str) -> None:
    """The time of the last change, of the entry itself and not of what it links to."""
    os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)
