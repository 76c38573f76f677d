"""Which reader reads what, and the filesystem of a part of a file as entries; used in the jail only."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from sysproc.isolation.readers.erofs import ErofsTree
from sysproc.isolation.readers.ext4_tree import Ext4Tree
from sysproc.isolation.readers.source import Source
from sysproc.isolation.readers.tree import Entries, Tree
from sysproc.isolation.unpack import limits_as_oserror, unpack_entries

# By the kinds of `sysproc.storage.vsf.probe`.
READERS: Mapping[str, Callable[[Source], Tree]] = {
    "ext2": Ext4Tree,
    "ext3": Ext4Tree,
    "ext4": Ext4Tree,
    "erofs": ErofsTree,
}


def entries_of(kind: str, fd: int, offset: int, size: int) -> Entries:
    """The entries of a filesystem. OSError as the package says, also while they are read."""
    source = Source(fd, offset, size)
    return Entries(READERS[kind](source), source)


def unpack_part(
    kind: str, fd: int, offset: int, size: int, progress: Callable[[dict[str, int]], object]
) -> dict[str, Any]:
    """Make everything that is in it below the root directory of this process; the counts."""
    with limits_as_oserror():
        return asdict(unpack_entries(entries_of(kind, fd, offset, size), progress))
