"""ext2, ext3 and ext4, the whole of it: superblock, groups, inodes (Documentation/filesystems/ext4).

    byte 1024            superblock
    block 1, or 2        group descriptors; with meta_bg some of them in the groups themselves
    in each group        a table of inodes

With metadata_csum every structure is believed only if its checksum is right. Where an inode's blocks are is in
`sysproc.isolation.readers.ext4_blocks`, directories and attributes in the modules beside it.
"""

import errno
import struct
from dataclasses import dataclass
from functools import cached_property

from sysproc.crc32c import over
from sysproc.isolation.readers.source import Source, broken, number, unsupported

ROOT_INODE = 2
NS = 10**9
_SUPERBLOCK_AT, _SUPERBLOCK_BYTES, _MAGIC = 1024, 1024, 0xEF53
_CHECKSUM_AT = 0x3FC
_MOST_LOG_BLOCK = 6  # 64 KiB
_LEAST_INODE_BYTES = 128
_OLD_DESCRIPTOR_BYTES, _MOST_DESCRIPTOR_BYTES = 32, 1024

# Compatible, incompatible and read-only compatible features.
_SPARSE_SUPER2 = 0x200
_NEEDS_RECOVERY, _META_BG, _64BIT, _CSUM_SEED = 0x4, 0x10, 0x80, 0x2000
_FILETYPE = 0x2
_SPARSE_SUPER, _METADATA_CSUM = 0x1, 0x400
_REFUSED = {
    0x1: "compression",
    0x8: "journal_dev",
    0x400: "ea_inode",
    0x1000: "dirdata",
    0x10000: "encrypt",
}
_READ = _FILETYPE | _NEEDS_RECOVERY | _META_BG | _64BIT | _CSUM_SEED | 0x40 | 0x100 | 0x200 | 0x4000 | 0x8000 | 0x20000

_EXTENTS_FLAG, _INLINE_FLAG, _INDEXED_FLAG, _ENCRYPTED_FLAG = 0x80000, 0x10000000, 0x1000, 0x800


@dataclass(frozen=True)
class Inode:
    """An inode as it is; mtime with nanoseconds where it has them. seed: of the checksums of what belongs to it."""

    number: int
    raw: bytes
    seed: int

    @property
    def mode(self) -> int:
        """Type and permissions, as stat(2) has them."""
        return number(self.raw, 0, "<H")

    @property
    def uid(self) -> int:
        """The owner."""
        return number(self.raw, 2, "<H") | number(self.raw, 0x78, "<H") << 16

    @property
    def gid(self) -> int:
        """The group."""
        return number(self.raw, 0x18, "<H") | number(self.raw, 0x7A, "<H") << 16

    @property
    def size(self) -> int:
        """In bytes."""
        return number(self.raw, 4, "<I") | number(self.raw, 0x6C, "<I") << 32

    @property
    def links(self) -> int:
        """How many names it has."""
        return number(self.raw, 0x1A, "<H")

    @property
    def attribute_block(self) -> int:
        """Where attributes are that have no room in the inode; 0: nowhere."""
        return number(self.raw, 0x68, "<I") | number(self.raw, 0x76, "<H") << 32

    @property
    def root(self) -> bytes:
        """The 60 bytes that say where its blocks are, or have what is in it."""
        return self.raw[0x28:0x64]

    @property
    def has_extents(self) -> bool:
        """Whether its blocks are told by extents."""
        return bool(self._flags & _EXTENTS_FLAG)

    @property
    def is_inline(self) -> bool:
        """Whether what is in it is in the inode itself."""
        return bool(self._flags & _INLINE_FLAG)

    @property
    def is_encrypted(self) -> bool:
        """By fscrypt."""
        return bool(self._flags & _ENCRYPTED_FLAG)

    @property
    def _flags(self) -> int:
        return number(self.raw, 0x20, "<I")

    @property
    def extra_bytes(self) -> int:
        """How much of what is behind the first 128 bytes has fields; the rest has attributes."""
        if len(self.raw) <= _LEAST_INODE_BYTES:
            return 0
        extra = number(self.raw, 0x80, "<H")
        if extra % 4 or extra > len(self.raw) - _LEAST_INODE_BYTES:
            raise broken(f"inode {self.number} claims {extra} bytes more than it has")
        return extra

    @property
    def mtime_ns(self) -> int:
        """When it was changed last; two more bits of seconds and the nanoseconds are behind the first 128 bytes."""
        seconds = number(self.raw, 0x10, "<i")
        if _LEAST_INODE_BYTES + self.extra_bytes < 0x8C:
            return seconds * NS
        extra = number(self.raw, 0x88, "<I")
        return (seconds + ((extra & 3) << 32)) * NS + min(extra >> 2, NS - 1)


class Ext4:
    """The filesystem in a part of a file."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._block = block = source.read(_SUPERBLOCK_AT, _SUPERBLOCK_BYTES)
        if number(block, 0x38, "<H") != _MAGIC:
            raise broken("there is no superblock")
        self._compat, self._incompat, self._ro_compat = (number(block, at, "<I") for at in (0x5C, 0x60, 0x64))
        self.has_checksums = bool(self._ro_compat & _METADATA_CSUM)
        self.has_filetype = bool(self._incompat & _FILETYPE)
        self._check_features()
        self._check_sizes()
        self._tables: dict[int, int] = {}

    def _check_features(self) -> None:
        if self.has_checksums and over(0xFFFFFFFF, self._block[:_CHECKSUM_AT]) != number(
            self._block, _CHECKSUM_AT, "<I"
        ):
            raise broken("the checksum of the superblock is wrong")
        refused = [_REFUSED.get(1 << bit, f"{1 << bit:#x}") for bit in range(32) if self._incompat & ~_READ & 1 << bit]
        if refused:
            raise unsupported(f"the filesystem has features that are not read here: {', '.join(refused)}")
        if self._incompat & _NEEDS_RECOVERY:
            raise OSError(errno.EUCLEAN, "needs recovery", "its journal has to be replayed first (needs_recovery)")

    def _check_sizes(self) -> None:
        block = self._block
        log_block = number(block, 0x18, "<I")
        if log_block > _MOST_LOG_BLOCK:
            raise broken(f"its blocks have 2^{10 + log_block} bytes")
        self.block_bytes = 1024 << log_block
        high = number(block, 0x150, "<I") << 32 if self._incompat & _64BIT else 0
        self.blocks = number(block, 4, "<I") | high
        self.inodes = number(block, 0, "<I")
        self._first_block = number(block, 0x14, "<I")
        self._blocks_per_group, self._inodes_per_group = number(block, 0x20, "<I"), number(block, 0x28, "<I")
        self._inode_bytes = number(block, 0x58, "<H") if number(block, 0x4C, "<I") else _LEAST_INODE_BYTES
        self._descriptor_bytes = number(block, 0xFE, "<H") if self._incompat & _64BIT else _OLD_DESCRIPTOR_BYTES
        if not 0 < self.blocks * self.block_bytes <= self.source.size:
            raise broken(
                f"it claims {self.blocks} blocks of {self.block_bytes} bytes, and has {self.source.size} bytes"
            )
        if self._first_block > 1 or not self._blocks_per_group or not 0 < self._inodes_per_group <= self.inodes:
            raise broken("its groups have absurd sizes")
        if not is_power(self._inode_bytes, _LEAST_INODE_BYTES, self.block_bytes):
            raise broken(f"its inodes have {self._inode_bytes} bytes")
        if not is_power(self._descriptor_bytes, _OLD_DESCRIPTOR_BYTES, _MOST_DESCRIPTOR_BYTES):
            raise broken(f"its group descriptors have {self._descriptor_bytes} bytes")

    @cached_property
    def seed(self) -> int:
        """What checksums begin with: of the UUID, or stored, so that the UUID may change."""
        if self._incompat & _CSUM_SEED:
            return number(self._block, 0x270, "<I")
        return over(0xFFFFFFFF, self._block[0x68:0x78])

    def read_block(self, block: int) -> bytes:
        """One block."""
        self.check_blocks(block, 1)
        return self.source.read(block * self.block_bytes, self.block_bytes)

    def check_blocks(self, first: int, count: int) -> None:
        """Raise EBADMSG unless these are blocks of the filesystem."""
        if not self._first_block <= first < first + count <= self.blocks:
            raise broken(f"{count} blocks at {first} are outside of its {self.blocks}")

    # -- inodes

    def inode(self, inode: int) -> Inode:
        """One inode, whose checksum is right."""
        if not 1 <= inode <= self.inodes:
            raise broken(f"there is no inode {inode}")
        group, index = divmod(inode - 1, self._inodes_per_group)
        at = self._table(group) * self.block_bytes + index * self._inode_bytes
        raw = self.source.read(at, self._inode_bytes)
        seed = over(over(self.seed, struct.pack("<I", inode)), raw[0x64:0x68]) if self.has_checksums else 0
        found = Inode(inode, raw, seed)
        if self.has_checksums:
            self._check_inode(found)
        return found

    def _check_inode(self, inode: Inode) -> None:
        blank, stored, bits = bytearray(inode.raw), number(inode.raw, 0x7C, "<H"), 0xFFFF
        blank[0x7C:0x7E] = bytes(2)
        if inode.extra_bytes >= 4:
            stored, bits = stored | number(inode.raw, 0x82, "<H") << 16, 0xFFFFFFFF
            blank[0x82:0x84] = bytes(2)
        if over(inode.seed, bytes(blank)) & bits != stored:
            raise broken(f"the checksum of inode {inode.number} is wrong")

    def _table(self, group: int) -> int:
        """The first block of a group's inodes; nothing else may have these blocks."""
        if group not in self._tables:
            raw = self._descriptor(group)
            table = number(raw, 8, "<I") | (number(raw, 0x28, "<I") << 32 if len(raw) > _OLD_DESCRIPTOR_BYTES else 0)
            count = -(-self._inodes_per_group * self._inode_bytes // self.block_bytes)
            self.check_blocks(table, count)
            self.source.take(table, count, f"the inodes of group {group}")
            self._tables[group] = table
        return self._tables[group]

    def _descriptor(self, group: int) -> bytes:
        in_block = self.block_bytes // self._descriptor_bytes
        block, index = divmod(group, in_block)
        raw = self.read_block(self._descriptor_block(block, in_block))
        raw = raw[index * self._descriptor_bytes : (index + 1) * self._descriptor_bytes]
        if self.has_checksums:
            blank = raw[:0x1E] + bytes(2) + raw[0x20:]
            if over(over(self.seed, struct.pack("<I", group)), blank) & 0xFFFF != number(raw, 0x1E, "<H"):
                raise broken(f"the checksum of group descriptor {group} is wrong")
        return raw

    def _descriptor_block(self, which: int, in_block: int) -> int:
        """Where a block of descriptors is."""
        if not self._incompat & _META_BG or which < number(self._block, 0x104, "<I"):
            return self._first_block + 1 + which
        group = which * in_block
        return self._first_block + group * self._blocks_per_group + self._has_superblock(group)

    def _has_superblock(self, group: int) -> bool:
        if self._compat & _SPARSE_SUPER2:
            return group in (0, number(self._block, 0x24C, "<I"), number(self._block, 0x250, "<I"))
        return not self._ro_compat & _SPARSE_SUPER or group <= 1 or any(is_power_of(group, base) for base in (3, 5, 7))


def is_power(value: int, least: int, most: int) -> bool:
    """Whether it is a power of two between these."""
    return least <= value <= most and not value & value - 1


def is_power_of(value: int, base: int) -> bool:
    """Whether it is a power of the base."""
    while value % base == 0:
        value //= base
    return value == 1
