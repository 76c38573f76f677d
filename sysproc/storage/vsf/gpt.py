"""GUID partition tables, read and written (UEFI 2.10, section 5).

    byte 0        protective MBR          one entry of type 0xEE
    512           primary header          points to its entries and to the backup
    1024          128 entries of 128 bytes
    1 MiB …       partitions              aligned to 1 MiB
    end-33·512    backup entries
    end-512       backup header

Ours have sectors of 512 bytes and 128 entries; of others everything that names its bounds is believed only within the
file. Types are in `sysproc.storage.vsf.partition_types`, where partitions go in `sysproc.storage.vsf.layout`, what is
in them in `sysproc.storage.vsf.probe`: filesystems are none of this module's business.
"""

import binascii
import os
import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from sysproc.errors import InvalidArgument
from sysproc.storage.vsf.partition_types import type_of

SECTOR = 512
# Of disks that know no smaller ones: everything in their tables counts in these.
LARGE_SECTOR = 4096
ALIGNMENT = 1 << 20
ENTRIES, ENTRY_BYTES = 128, 128
_TABLE_SECTORS = ENTRIES * ENTRY_BYTES // SECTOR
FIRST_USABLE = 2 + _TABLE_SECTORS
_SIGNATURE = b"EFI PART"
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY = struct.Struct("<16s16sQQQ72s")
_REVISION = 0x00010000
_MAX_ENTRIES = 1024


@dataclass(frozen=True)
class Partition:
    """One partition; offset and size in bytes. attributes: the flags of its entry, kept as they are."""

    type_guid: uuid.UUID
    guid: uuid.UUID
    offset_bytes: int
    size_bytes: int
    label: str
    attributes: int = 0


@dataclass(frozen=True)
class Gpt:
    """A table: the disk's GUID, its size in bytes, its partitions."""

    disk_guid: uuid.UUID
    disk_bytes: int
    partitions: tuple[Partition, ...]

    def with_new_guids(self) -> "Gpt":
        """The same layout as another disk."""
        partitions = tuple(replace(one, guid=uuid.uuid4()) for one in self.partitions)
        return replace(self, disk_guid=uuid.uuid4(), partitions=partitions)

    def grown(self, disk_bytes: int) -> "Gpt":
        """The same disk, larger, with the last partition reaching to the new end."""
        last = self.partitions[-1]
        size = usable_end(disk_bytes) - last.offset_bytes
        partitions = (*self.partitions[:-1], replace(last, size_bytes=size))
        return replace(self, disk_bytes=disk_bytes, partitions=partitions)


def usable_end(disk_bytes: int) -> int:
    """Where the last partition of a disk of this size may end, aligned."""
    return (disk_bytes - (_TABLE_SECTORS + 1) * SECTOR) // ALIGNMENT * ALIGNMENT


def single_partition(disk_bytes: int, label: str = "root") -> Gpt:
    """A fresh table with one root partition over the whole disk."""
    size = usable_end(disk_bytes) - ALIGNMENT
    return Gpt(uuid.uuid4(), disk_bytes, (Partition(type_of(label), uuid.uuid4(), ALIGNMENT, size, label),))


# -- writing


def write_gpt(fd: int, gpt: Gpt) -> None:
    """Write the table, both copies; what is in the partitions stays."""
    write_primary(fd, gpt)
    write_backup(fd, gpt)


def write_primary(fd: int, gpt: Gpt) -> None:
    """The copy at the beginning only."""
    table, last = _table(gpt.partitions), gpt.disk_bytes // SECTOR - 1
    os.pwrite(fd, _protective_mbr(last), 0)
    os.pwrite(fd, _header(gpt, table, 1, last, 2), SECTOR)
    os.pwrite(fd, table, 2 * SECTOR)


def write_backup(fd: int, gpt: Gpt) -> None:
    """The copy at the end only."""
    table, last = _table(gpt.partitions), gpt.disk_bytes // SECTOR - 1
    os.pwrite(fd, table, (last - _TABLE_SECTORS) * SECTOR)
    os.pwrite(fd, _header(gpt, table, last, 1, last - _TABLE_SECTORS), last * SECTOR)


def _table(partitions: Sequence[Partition]) -> bytes:
    entries = b"".join(_entry(one) for one in partitions)
    return entries.ljust(ENTRIES * ENTRY_BYTES, b"\0")


def _entry(partition: Partition) -> bytes:
    first = partition.offset_bytes // SECTOR
    last = first + partition.size_bytes // SECTOR - 1
    label = partition.label.encode("utf-16-le")[:72].ljust(72, b"\0")
    return _ENTRY.pack(partition.type_guid.bytes_le, partition.guid.bytes_le, first, last, partition.attributes, label)


def _header(gpt: Gpt, table: bytes, mine: int, other: int, entries: int) -> bytes:
    last_usable = gpt.disk_bytes // SECTOR - 2 - _TABLE_SECTORS
    fields = (mine, other, FIRST_USABLE, last_usable, gpt.disk_guid.bytes_le, entries, ENTRIES, ENTRY_BYTES)
    blank = _HEADER.pack(_SIGNATURE, _REVISION, _HEADER.size, 0, 0, *fields, binascii.crc32(table))
    return blank[:16] + struct.pack("<I", binascii.crc32(blank)) + blank[20:].ljust(SECTOR - 20, b"\0")


def _protective_mbr(last: int) -> bytes:
    entry = struct.pack("<B3sB3sII", 0, b"\x00\x02\x00", 0xEE, b"\xff\xff\xff", 1, min(last, 0xFFFFFFFF))
    return b"\0" * 446 + entry + b"\0" * 48 + b"\x55\xaa"


# -- reading


@dataclass(frozen=True)
class _Header:
    """What a header says, checked: sector numbers, and the entries' count and checksum."""

    disk_guid: uuid.UUID
    first_usable: int
    last_usable: int
    entries_at: int
    count: int
    entries_crc: int

    @property
    def entries_bytes(self) -> int:
        """How long the table is."""
        return self.count * ENTRY_BYTES


def read_gpt(fd: int) -> Gpt:
    """Read and check the table: the primary, or the backup if the primary is damaged. Raises InvalidArgument."""
    size = os.lseek(fd, 0, os.SEEK_END)  # of a file or of a block device
    try:
        return _read_at(fd, size, 1)
    except InvalidArgument:
        last = size // SECTOR - 1
        if last < FIRST_USABLE or not _is_signed(fd, last * SECTOR) or _counts_in_large_sectors(fd):
            raise
        return _read_at(fd, size, last)


def has_gpt(fd: int) -> bool:
    """Whether there is something that calls itself a GUID partition table, at either end; it may be damaged."""
    backup_at = (os.lseek(fd, 0, os.SEEK_END) // SECTOR - 1) * SECTOR
    return any(_is_signed(fd, at) for at in (SECTOR, LARGE_SECTOR, backup_at) if at > 0)


def _is_signed(fd: int, at: int) -> bool:
    return os.pread(fd, len(_SIGNATURE), at) == _SIGNATURE


def _counts_in_large_sectors(fd: int) -> bool:
    return _is_signed(fd, LARGE_SECTOR) and not _is_signed(fd, SECTOR)


def _read_at(fd: int, size: int, sector: int) -> Gpt:
    header = _read_header(fd, size, sector)
    table = os.pread(fd, header.entries_bytes, header.entries_at * SECTOR)
    if len(table) < header.entries_bytes or binascii.crc32(table) != header.entries_crc:
        raise broken("the checksum of the entries is wrong")
    return Gpt(header.disk_guid, size, _partitions(table, header))


def _read_header(fd: int, size: int, sector: int) -> _Header:
    raw = os.pread(fd, SECTOR, sector * SECTOR)
    if len(raw) < SECTOR or raw[:8] != _SIGNATURE:
        if _counts_in_large_sectors(fd):
            raise broken("its partition table counts in sectors of 4096 bytes, and here they have 512")
        raise broken("it has no GUID partition table")
    _, _, header_bytes, crc, _, mine, _, first, last, guid, at, count, entry_bytes, table_crc = _HEADER.unpack_from(raw)
    if not _HEADER.size <= header_bytes <= SECTOR:
        raise broken(f"the header claims {header_bytes} bytes")
    if binascii.crc32(raw[:16] + b"\0\0\0\0" + raw[20:header_bytes]) != crc or mine != sector:
        raise broken("the checksum of the header is wrong")
    if entry_bytes != ENTRY_BYTES or count > _MAX_ENTRIES:
        raise broken(f"{count} entries of {entry_bytes} bytes are more than expected")
    header = _Header(uuid.UUID(bytes_le=guid), first, last, at, count, table_crc)
    _check_bounds(header, sector, size // SECTOR)
    return header


def _check_bounds(header: _Header, sector: int, sectors: int) -> None:
    """The partitions' room and the entries are inside the file, and apart from each other and from the headers."""
    if not 2 <= header.first_usable <= header.last_usable + 1 <= sectors:
        raise broken(f"partitions may be from sector {header.first_usable} to {header.last_usable} of {sectors}")
    end = header.entries_at + -(-header.entries_bytes // SECTOR)
    if not 2 <= header.entries_at < end <= sectors:
        raise broken(f"the entries are at sector {header.entries_at} of {sectors}")
    if header.entries_at <= header.last_usable and header.first_usable < end:
        raise broken("the entries are where partitions may be")
    if header.first_usable <= sector <= header.last_usable:
        raise broken("the header is where partitions may be")


def _partitions(table: bytes, header: _Header) -> tuple[Partition, ...]:
    found = []
    for type_guid, guid, first, last, attributes, label in _ENTRY.iter_unpack(table):
        if type_guid == b"\0" * 16:
            continue
        if not header.first_usable <= first <= last <= header.last_usable:
            raise broken(f"a partition reaches from sector {first} to {last}")
        text = label.decode("utf-16-le", "replace").split("\0", 1)[0]
        offset, size = first * SECTOR, (last - first + 1) * SECTOR
        guids = (uuid.UUID(bytes_le=type_guid), uuid.UUID(bytes_le=guid))
        found.append(Partition(*guids, offset, size, text, attributes))
    _refuse_overlap(found)
    return tuple(found)


def _refuse_overlap(partitions: Sequence[Partition]) -> None:
    in_order = sorted(partitions, key=lambda one: one.offset_bytes)
    for one, following in pairwise(in_order):
        if one.offset_bytes + one.size_bytes > following.offset_bytes:
            raise broken(f"the partitions {one.label!r} and {following.label!r} overlap")


def broken(why: str) -> InvalidArgument:
    """The error for a file that is no VSF, or a damaged one."""
    return InvalidArgument(
        f"This is no usable virtual storage file: {why}.",
        resolution="Check it with `sfdisk --verify FILE`; restore it from where it came.",
        reason="VSF_BROKEN",
    )
