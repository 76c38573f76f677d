"""Unpacking a tar into the root directory of this process: inside the jail only.

The process's root is the new filesystem, so that no path, link or `..` of the archive leads out of it. Kept: owners,
modes, times, links; extended attributes and ACLs where the kernel allows them (`sysproc.isolation.attributes`). Devices
are left out and counted. What is wrong with an archive is the errno of an OSError:

    EBADMSG         it is broken: no tar, truncated, or it contradicts itself
    EINVAL          it has something that no container's filesystem can have
    EDQUOT          the filesystem is too small for it (ENOSPC would be a disk of the host)
    ENOMEM, ETIME   it takes more memory or processor time than this process may have

How the archive is read is in `sysproc.isolation.tar_reader` and, where it is compressed, `…decompression`; how the jail
is made in `sysproc.isolation.jail`.
"""

import errno
import os
import posixpath
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn, Protocol

from sysproc.isolation.attributes import DEFAULT_ACL, Counts, Names, set_acls, set_attributes, set_waiting_acls
from sysproc.isolation.decompression import decompressed
from sysproc.isolation.tar_headers import Kind, broken, shown
from sysproc.isolation.tar_reader import Entry, TarReader

PROGRESS_INTERVAL_S = 0.2
MAX_ID = 65535
# The sum of the sizes of all files, of which sparse ones cost nothing; what a message and a database can hold.
MAX_TOTAL_BYTES = 1 << 60
# Below a link to nowhere or to a file, in a loop of links, in the place of a directory that is not empty, …
_CONTRADICTIONS = (
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENOTEMPTY,
    errno.ELOOP,
    errno.ENOENT,
    errno.EPERM,
)
# Too long a name or path, too many links to one file, too large a file or attribute.
_BEYOND_THE_FILESYSTEM = (
    errno.ENAMETOOLONG,
    errno.EMLINK,
    errno.E2BIG,
    errno.ERANGE,
    errno.EFBIG,
    errno.EOVERFLOW,
)


class Archive(Protocol):
    """What is unpacked: a tar, or a filesystem (`sysproc.isolation.readers`)."""

    def __iter__(self) -> Iterator[Entry]:
        """The entries, parents before what is in them."""
        ...

    def data(self, length: int) -> Iterator[bytes]:
        """The next bytes of the current entry's data."""
        ...


@dataclass
class AtTheEnd:
    """What is set when nothing more is made, by path: times of directories, ACLs that wait, in words or as they are."""

    times: dict[bytes, int] = field(default_factory=dict)
    acls: dict[bytes, dict[bytes, bytes]] = field(default_factory=dict)
    attributes: dict[bytes, dict[bytes, bytes]] = field(default_factory=dict)

    def forget(self, path: bytes) -> None:
        """Something else is there now."""
        self.times.pop(path, None)
        self.acls.pop(path, None)
        self.attributes.pop(path, None)

    def set(self, counts: Counts) -> None:
        """Now. What was below a link that leads elsewhere by now is not there any more. Raises as `unpack_entry`."""
        names = Names()
        for path, acls in self.acls.items():
            with of_entry(path[1:]):
                set_waiting_acls(path, acls, names, counts)
        for path, attributes in self.attributes.items():
            with of_entry(path[1:]), suppress(FileNotFoundError, NotADirectoryError):
                set_attributes(path, attributes, counts)
        for path, mtime_ns in self.times.items():
            with of_entry(path[1:]), suppress(FileNotFoundError, NotADirectoryError):
                set_time(path, mtime_ns)


def unpack_archive(fd: int, progress: Callable[[dict[str, int]], object]) -> dict[str, Any]:
    """Unpack everything; the counts. OSError as the module says."""
    with limits_as_oserror(), decompressed(fd) as stream:
        return asdict(unpack_entries(TarReader(stream), progress))


def unpack_entries(archive: Archive, progress: Callable[[dict[str, int]], object]) -> Counts:
    """All entries."""
    counts, end, told = Counts(), AtTheEnd(), time.monotonic()
    for entry in archive:
        unpack_entry(archive, entry, counts, end)
        if time.monotonic() - told > PROGRESS_INTERVAL_S:
            progress(counts.numbers())
            told = time.monotonic()
    end.set(counts)
    return counts


class OutOfTime(BaseException):
    """The limit of processor time is reached; no Exception, so that nothing on the way takes it for another failure."""


def out_of_time(*_: object) -> NoReturn:
    """The handler of SIGXCPU."""
    raise OutOfTime


@contextmanager
def limits_as_oserror() -> Iterator[None]:
    """The limits of memory and of processor time, in words."""
    try:
        yield
    except MemoryError:
        # Told below, where what the archive took is free again.
        failure = OSError(errno.ENOMEM, "out of memory", "it has too many directories, or too large headers")
    except OutOfTime:
        failure = OSError(errno.ETIME, "out of time", "it has too many entries, or too much data")
    else:
        return
    raise failure


def inside(name: bytes) -> bytes:
    """The path in the new root: absolute, without `..`."""
    return posixpath.normpath(b"/" + name.lstrip(b"/"))


def unpack_entry(archive: Archive, entry: Entry, counts: Counts, end: AtTheEnd) -> None:
    """One entry, whatever kind it is. EBADMSG if it contradicts those before it, EINVAL if no filesystem takes it."""
    with of_entry(entry.name):
        _unpack_entry(archive, entry, counts, end)


@contextmanager
def of_entry(name: bytes) -> Iterator[None]:
    """What the kernel says of a path of the archive, as the module says it."""
    try:
        yield
    except OSError as failure:
        if failure.filename is None or isinstance(failure.filename, str):
            raise  # it has its words already, or it is no matter of a path of the archive
        text = f"{shown(name)}: {failure.strerror}"
        if failure.errno in _CONTRADICTIONS:
            raise broken(text) from None
        if failure.errno in _BEYOND_THE_FILESYSTEM:
            raise OSError(errno.EINVAL, "beyond the filesystem", text) from None
        if failure.errno == errno.ENOSPC:
            raise OSError(errno.EDQUOT, "the filesystem is full", text) from None
        raise OSError(failure.errno, failure.strerror, text) from None


def _unpack_entry(archive: Archive, entry: Entry, counts: Counts, end: AtTheEnd) -> None:
    path = inside(entry.name)
    counts.entries += 1
    if entry.kind is Kind.DEVICE:
        counts.skipped_devices += 1
        return
    make_parents(path)
    if entry.kind is Kind.DIRECTORY:
        make_directory(path)
        end.forget(path)
        end.times[path] = entry.mtime_ns
    else:
        remove_what_is_there(path, end)
        make(archive, entry, path, counts)
    if entry.kind is not Kind.HARD_LINK:
        set_owner_mode_attributes(entry, path, counts, end)


def make(archive: Archive, entry: Entry, path: bytes, counts: Counts) -> None:
    """Anything but a directory or a device."""
    match entry.kind:
        case Kind.SYMLINK:
            os.symlink(entry.link, path)
        case Kind.HARD_LINK:
            make_hard_link(entry, path)
        case Kind.FIFO:
            os.mkfifo(path, 0o600)
        case _:
            counts.bytes += entry.size
            if counts.bytes > MAX_TOTAL_BYTES:
                raise OSError(errno.EINVAL, "too large", f"its files have more than {MAX_TOTAL_BYTES} bytes together")
            write_file(archive, entry, path)


def make_parents(path: bytes) -> None:
    """Directories that the archive does not mention have mode 755 and belong to root."""
    missing, parent = [], posixpath.dirname(path)
    while not os.path.isdir(parent):
        missing.append(parent)
        parent = posixpath.dirname(parent)
    for directory in reversed(missing):
        os.mkdir(directory, 0o755)


def make_directory(path: bytes) -> None:
    """A directory that is there already is kept, a link to one as well; a file gives way."""
    if os.path.isdir(path):
        return
    with suppress(FileNotFoundError):
        os.unlink(path)
    os.mkdir(path, 0o755)


def remove_what_is_there(path: bytes, end: AtTheEnd) -> None:
    """A later entry of the same name wins; over a directory only if nothing is in it, as with tar."""
    if path == b"/":
        raise broken("an entry for the root itself is no directory")
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except IsADirectoryError:
        os.rmdir(path)
    end.forget(path)


def make_hard_link(entry: Entry, path: bytes) -> None:
    """To an entry that came before, and to nothing else."""
    try:
        os.link(inside(entry.link), path, follow_symlinks=False)
    except FileNotFoundError:
        raise broken(f"{shown(entry.name)} is a hard link to {shown(entry.link)}, which is not in it") from None


def write_file(archive: Archive, entry: Entry, path: bytes) -> None:
    """The contents of a regular file. Zeros become holes."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with named(path), open(fd, "wb") as target:
        for offset, length in entry.segments:
            target.seek(offset)
            for block in archive.data(length):
                if block.count(0) == len(block):
                    target.seek(len(block), os.SEEK_CUR)
                else:
                    target.write(block)
        target.truncate(entry.size)


@contextmanager
def named(path: bytes) -> Iterator[None]:
    """Calls on an fd, and utime, fail without a path; here the path is told."""
    try:
        yield
    except OSError as failure:
        if failure.filename is not None or failure.errno is None:
            raise  # of reading the archive
        raise OSError(failure.errno, failure.strerror, path) from None


def set_owner_mode_attributes(entry: Entry, path: bytes, counts: Counts, end: AtTheEnd) -> None:
    """In the order that the kernel needs: a chown clears set-id bits and capabilities."""
    if not (0 <= entry.uid <= MAX_ID and 0 <= entry.gid <= MAX_ID):
        text = f"{shown(entry.name)} belongs to {entry.uid}:{entry.gid}, and a container has the ids 0 to {MAX_ID}"
        raise OSError(errno.EINVAL, "id out of range", text)
    os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
    if entry.kind is not Kind.SYMLINK:
        os.chmod(path, entry.mode & 0o7777)
    waiting = {name: value for name, value in entry.attributes.items() if name == DEFAULT_ACL}
    set_attributes(path, dict(entry.attributes.items() - waiting.items()), counts)
    if waiting:
        end.attributes[path] = waiting
    if entry.acls and (later := set_acls(path, entry.acls, counts)):
        end.acls[path] = later
    if entry.kind is not Kind.DIRECTORY:
        set_time(path, entry.mtime_ns)


def set_time(path: bytes, mtime_ns: int) -> None:
    """The time of the last change, of the entry itself and not of what it links to."""
    with named(path):
        os.utime(path, ns=(mtime_ns, mtime_ns), follow_symlinks=False)
