"""A file as a disk, ours or anybody's: its partitions and what is in each; or one filesystem without a table.

    GUID partition table     a part for each partition                 ours, sfdisk's, systemd-repart's
    none                     one part, the whole file, if it is one     mkfs FILE, cryptsetup luksFormat FILE
    anything else            refused                                    the old table of MBR, 4096-byte sectors

Bounded: 36 KiB are read at most besides 1 KiB for each place of a magic in each partition. Tables are read by
`sysproc.storage.vsf.gpt`, magics by `sysproc.storage.vsf.probe`.
"""

import os
from dataclasses import dataclass

from sysproc.storage.vsf.gpt import broken, has_gpt, read_gpt
from sysproc.storage.vsf.probe import Contents, probe

_MBR_BYTES, _MBR_ENTRIES_AT, _MBR_MAGIC = 512, 446, b"\x55\xaa"


@dataclass(frozen=True)
class Part:
    """A place of the file: its label in the table (empty without one), where it is, and what is in it if we know."""

    label: str
    offset_bytes: int
    size_bytes: int
    contents: Contents | None


def read_disk(fd: int) -> tuple[Part, ...]:
    """The parts of a file, in the order of its table. Raises InvalidArgument for what is no usable disk."""
    if has_gpt(fd):
        return tuple(
            Part(one.label, one.offset_bytes, one.size_bytes, probe(fd, one.offset_bytes, one.size_bytes))
            for one in read_gpt(fd).partitions
        )
    size = os.lseek(fd, 0, os.SEEK_END)  # of a file or of a block device
    contents = probe(fd, 0, size)
    if contents is None:
        raise broken("it has an MBR partition table" if _has_mbr(fd) else "it is neither a disk nor a filesystem")
    return (Part("", 0, size, contents),)


def _has_mbr(fd: int) -> bool:
    """Whether sector 0 has the old table, with an entry in it."""
    sector = os.pread(fd, _MBR_BYTES, 0)
    return sector[-2:] == _MBR_MAGIC and any(sector[_MBR_ENTRIES_AT:-2])
