"""Another UUID for a btrfs in a file: all copies of the superblock, nothing else.

Since Linux 5.0 the UUID by which a filesystem is known may be another than the one that all its blocks carry, which
is `metadata_uuid` then; `btrfstune -M` does the same. Without it a kernel that has the original mounted takes the copy
for the original. The layout is that of struct btrfs_super_block (linux/btrfs_tree.h).
"""

import os
import struct
import uuid

from sysproc.crc32c import over
from sysproc.storage.vsf.ext4_uuid import not_ours

SUPERBLOCK_BYTES = 4096
# Where the copies are, as far as the filesystem reaches.
_COPIES = (64 << 10, 64 << 20, 256 << 30)
_CHECKSUM_BYTES, _FSID_AT, _MAGIC_AT, _MAGIC = 32, 0x20, 0x40, b"_BHRfS_M"
_LOG_ROOT_AT, _INCOMPAT_AT, _CHECKSUM_TYPE_AT, _METADATA_UUID_AT = 0x60, 0xBC, 0xC4, 0x23B
_HAS_METADATA_UUID, _CRC32C = 1 << 10, 0


def set_uuid(fd: int, offset: int, size: int, new: uuid.UUID) -> None:
    """Give the filesystem at this place of the file another UUID.

    Raises InvalidArgument where its checksums are of a kind that is not known here.
    """
    for at in _COPIES:
        if at + SUPERBLOCK_BYTES > size:
            break
        block = os.pread(fd, SUPERBLOCK_BYTES, offset + at)
        if block[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] == _MAGIC:
            os.pwrite(fd, with_uuid(block, new), offset + at)


def with_uuid(block: bytes, new: uuid.UUID) -> bytes:
    """A superblock with another UUID, and the checksum that fits."""
    if struct.unpack_from("<H", block, _CHECKSUM_TYPE_AT)[0] != _CRC32C:
        raise not_ours("its btrfs has checksums other than crc32c")
    changed = bytearray(block)
    (incompat,) = struct.unpack_from("<Q", block, _INCOMPAT_AT)
    if not incompat & _HAS_METADATA_UUID:
        changed[_METADATA_UUID_AT : _METADATA_UUID_AT + 16] = block[_FSID_AT : _FSID_AT + 16]
        struct.pack_into("<Q", changed, _INCOMPAT_AT, incompat | _HAS_METADATA_UUID)
    changed[_FSID_AT : _FSID_AT + 16] = new.bytes
    checksum = ~over(0xFFFFFFFF, bytes(changed[_CHECKSUM_BYTES:])) & 0xFFFFFFFF
    changed[:_CHECKSUM_BYTES] = struct.pack("<I", checksum).ljust(_CHECKSUM_BYTES, b"\0")
    return bytes(changed)


def has_log(fd: int, offset: int) -> bool:
    """Whether there is something that the next mount replays."""
    (log_root,) = struct.unpack("<Q", os.pread(fd, 8, offset + _COPIES[0] + _LOG_ROOT_AT))
    return bool(log_root)
