"""What is in a part of a file, by its magic: a few small reads at fixed places, whatever is written there.

    kind      magic at        label          UUID      size
    ext4      1080            in the superblock at 1024      (also ext2 and ext3, told by their features)
    btrfs     65600           in the superblock at 65536
    xfs       0               in the superblock at 0
    erofs     1024            in the superblock at 1024
    squashfs  0               none           none      bytes used
    luks      0               of version 2   both      version 1 and 2; what is inside is not to be seen

Nothing is believed but that the magic is there; sizes are compared with the part's own. Neither checksums nor trees are
looked at: the kernel does, or a check in the jail. Partitions are found by `sysproc.storage.vsf.disk`.
"""

import os
import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from sysproc.storage.vsf.gpt import broken

# Enough for every superblock.
_READ_BYTES = 1024


@dataclass(frozen=True)
class Contents:
    """What was found. label and uuid may be empty; size_bytes: what it says that it covers, None if it does not."""

    kind: str
    label: str = ""
    uuid: str = ""
    size_bytes: int | None = None


@dataclass(frozen=True)
class _Signature:
    """Where a kind has its superblock, which bytes tell it, and how the rest is read."""

    superblock_at: int
    magic_at: int
    magic: bytes
    read: Callable[[bytes], Contents]


def probe(fd: int, offset: int, size: int) -> Contents | None:
    """What is in these bytes of the file; None if it is nothing that we know.

    Raises InvalidArgument where several claim the same bytes, or one more than there are.
    """
    found = [one for signature in _SIGNATURES if (one := _look(fd, offset, size, signature)) is not None]
    if len(found) > 1:
        raise broken(f"it is {' and '.join(one.kind for one in found)} at once")
    if not found:
        return None
    if found[0].size_bytes is not None and found[0].size_bytes > size:
        raise broken(f"its {found[0].kind} claims {found[0].size_bytes} bytes, and has {size}")
    return found[0]


def _look(fd: int, offset: int, size: int, signature: _Signature) -> Contents | None:
    if signature.superblock_at + _READ_BYTES > size:
        return None
    block = os.pread(fd, _READ_BYTES, offset + signature.superblock_at)
    at = signature.magic_at
    if len(block) < _READ_BYTES or block[at : at + len(signature.magic)] != signature.magic:
        return None
    return signature.read(block)


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")


def _uuid(raw: bytes) -> str:
    return str(uuid.UUID(bytes=raw)) if any(raw) else ""


def _number(block: bytes, at: int, form: str) -> int:
    value: int = struct.unpack_from(form, block, at)[0]
    return value


def _shifted(value: int, shift: int) -> int:
    """value << shift, where the shift is anybody's: one that no filesystem has makes it larger than any file."""
    return value << min(shift, 64)


def _ext(block: bytes) -> Contents:
    compatible, incompatible, readonly = (_number(block, at, "<I") for at in (0x5C, 0x60, 0x64))
    blocks = _number(block, 0x04, "<I")
    if incompatible & 0x80:  # 64bit
        blocks |= _number(block, 0x150, "<I") << 32
    size = _shifted(blocks, 10 + _number(block, 0x18, "<I"))
    if incompatible & ~0x16 or readonly & ~0x7:  # what ext3 has not
        kind = "ext4"
    else:
        kind = "ext3" if compatible & 0x4 else "ext2"  # has_journal
    return Contents(kind, _text(block[0x78:0x88]), _uuid(block[0x68:0x78]), size)


def _btrfs(block: bytes) -> Contents:
    return Contents("btrfs", _text(block[0x12B:0x22B]), _uuid(block[0x20:0x30]), _number(block, 0x70, "<Q"))


def _xfs(block: bytes) -> Contents:
    size = _number(block, 4, ">I") * _number(block, 8, ">Q")
    return Contents("xfs", _text(block[108:120]), _uuid(block[32:48]), size)


def _erofs(block: bytes) -> Contents:
    size = _shifted(_number(block, 36, "<I"), block[12])
    return Contents("erofs", _text(block[64:80]), _uuid(block[48:64]), size)


def _squashfs(block: bytes) -> Contents:
    return Contents("squashfs", size_bytes=_number(block, 40, "<Q"))


def _luks(block: bytes) -> Contents:
    label = _text(block[24:72]) if _number(block, 6, ">H") == 2 else ""
    return Contents("luks", label, _text(block[168:208]))


_SIGNATURES = (
    _Signature(1024, 0x38, b"\x53\xef", _ext),
    _Signature(65536, 0x40, b"_BHRfS_M", _btrfs),
    _Signature(0, 0, b"XFSB", _xfs),
    _Signature(1024, 0, b"\xe2\xe1\xf5\xe0", _erofs),
    _Signature(0, 0, b"hsqs", _squashfs),
    _Signature(0, 0, b"LUKS\xba\xbe", _luks),
)
