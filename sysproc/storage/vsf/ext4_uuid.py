"""Another UUID, and label, for an ext4 filesystem in a file: all copies of the superblock, nothing else.

Possible because our mke2fs sets metadata_csum_seed: the checksums of everything else start from a stored seed, not
from the UUID (Documentation/filesystems/ext4/super.rst). `tune2fs -U` does the same, 3 ms and one process later.
"""

import os
import struct
import uuid
from collections.abc import Iterator
from functools import lru_cache

from sysproc.crc32c import over
from sysproc.errors import InvalidArgument

SUPERBLOCK_AT, SUPERBLOCK_BYTES = 1024, 1024
_MAGIC_AT, _MAGIC = 0x38, 0xEF53
_UUID_AT, _LABEL_AT, _CHECKSUM_AT = 0x68, 0x78, 0x3FC
LABEL_BYTES = 16
# The UUID, and the label behind it.
_IDENTITY_BYTES = 16 + LABEL_BYTES
_INCOMPAT_AT, _RO_COMPAT_AT = 0x60, 0x64
_METADATA_CSUM_SEED, _METADATA_CSUM, _SPARSE_SUPER, _RECOVER = 0x2000, 0x400, 0x1, 0x4


# What becomes of each bit of the checksum on the way from behind the label to the end.
_BITS_AT_END = tuple(over(1 << bit, bytes(_CHECKSUM_AT - _UUID_AT - _IDENTITY_BYTES)) for bit in range(32))


def set_uuid(fd: int, offset: int, new: uuid.UUID, label: str | None = None) -> None:
    """Give the filesystem at this offset of the file another UUID, and a label unless it shall keep what it has.

    Raises InvalidArgument if it is not one of ours.
    """
    primary = os.pread(fd, SUPERBLOCK_BYTES, offset + SUPERBLOCK_AT)
    check_ours(primary)
    for at in _copies(primary):
        block = os.pread(fd, SUPERBLOCK_BYTES, offset + at)
        if len(block) == SUPERBLOCK_BYTES and _field(block, _MAGIC_AT, "<H") == _MAGIC:
            os.pwrite(fd, with_uuid(block, new, label), offset + at)


def is_ours(fd: int, offset: int) -> bool:
    """Whether its UUID can be changed so: another tool may have made it, without a seed of its own."""
    try:
        check_ours(os.pread(fd, SUPERBLOCK_BYTES, offset + SUPERBLOCK_AT))
    except InvalidArgument:
        return False
    return True


def has_log(fd: int, offset: int) -> bool:
    """Whether there is something in the journal that the next mount replays: perhaps a superblock of before."""
    block = os.pread(fd, SUPERBLOCK_BYTES, offset + SUPERBLOCK_AT)
    return len(block) == SUPERBLOCK_BYTES and bool(_field(block, _INCOMPAT_AT, "<I") & _RECOVER)


def with_uuid(block: bytes, new: uuid.UUID, label: str | None = None) -> bytes:
    """A superblock with another UUID, and label, and the checksum that fits them if the one before did.

    A CRC is linear: where two blocks differ in these only, their checksums differ by that of the difference.
    """
    after = _UUID_AT + _IDENTITY_BYTES
    name = block[_LABEL_AT:after] if label is None else label.encode()[:LABEL_BYTES]
    identity = new.bytes + name.ljust(LABEL_BYTES, b"\0")
    checksum = _field(block, _CHECKSUM_AT, "<I") ^ _change_of_checksum(block[_UUID_AT:after], identity)
    return block[:_UUID_AT] + identity + block[after:_CHECKSUM_AT] + struct.pack("<I", checksum)


@lru_cache(maxsize=1)  # all copies of a superblock have the same ones: 13 of them, of 64 GiB
def _change_of_checksum(before: bytes, identity: bytes) -> int:
    changed, found = over(0, bytes(one ^ other for one, other in zip(before, identity, strict=True))), 0
    for bit, at_end in enumerate(_BITS_AT_END):
        if changed >> bit & 1:
            found ^= at_end
    return found


def check_ours(superblock: bytes) -> None:
    """Raise InvalidArgument for anything but an ext4 whose checksums do not depend on its UUID."""
    if len(superblock) < SUPERBLOCK_BYTES or _field(superblock, _MAGIC_AT, "<H") != _MAGIC:
        raise not_ours("there is no ext4 filesystem in it")
    incompat, ro_compat = _field(superblock, _INCOMPAT_AT, "<I"), _field(superblock, _RO_COMPAT_AT, "<I")
    if not (incompat & _METADATA_CSUM_SEED and ro_compat & _METADATA_CSUM):
        raise not_ours("its ext4 was made without metadata_csum_seed")


def _field(block: bytes, at: int, form: str) -> int:
    value: int = struct.unpack_from(form, block, at)[0]
    return value


def _copies(superblock: bytes) -> Iterator[int]:
    """Where the copies are, in bytes from the start: with sparse_super in groups 0, 1 and powers of 3, 5, 7."""
    block_bytes = 1024 << _field(superblock, 0x18, "<I")
    per_group = _field(superblock, 0x20, "<I")
    blocks = _field(superblock, 0x04, "<I") | _field(superblock, 0x150, "<I") << 32
    groups = -(-blocks // per_group)
    sparse = _field(superblock, _RO_COMPAT_AT, "<I") & _SPARSE_SUPER
    yield SUPERBLOCK_AT
    for group in sorted(_powers(groups) if sparse else range(1, groups)):
        yield group * per_group * block_bytes


def _powers(groups: int) -> set[int]:
    found = {1} if groups > 1 else set()
    for base in (3, 5, 7):
        power = base
        while power < groups:
            found.add(power)
            power *= base
    return found


def not_ours(why: str) -> InvalidArgument:
    """The error for a filesystem that cannot be cloned this way."""
    return InvalidArgument(
        f"The filesystem cannot be cloned: {why}.",
        resolution="Import the image again.",
        reason="VSF_NOT_OURS",
    )
