"""What is in an image that was received, as a volume's record says it; and in what is encrypted, once it is open.

    a table, LUKS2 in a partition          encrypted: filesystems      of each the label in the table; others are plain
    LUKS2, without a table                 encrypted: whole            what is inside may have a table
    else                                   not encrypted

Of what is encrypted the type is `luks` until somebody has given the secret (`sysproc.volume_opening`). Only tables,
superblocks and LUKS headers are read (`sysproc.storage.vsf.disk`, `sysproc.storage.luks`). What becomes of an image is
decided in `sysproc.volume_imports`; what is in its filesystems is read elsewhere, in a jail (`sysproc.volume_remake`).
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from sysproc.errors import SysprocError
from sysproc.storage.luks.region import Region
from sysproc.storage.luks.volume import open_volume
from sysproc.storage.volumes import FILESYSTEMS, LUKS, NONE, WHOLE, Filesystem
from sysproc.storage.vsf.disk import Part, read_disk
from sysproc.storage.vsf.gpt import has_gpt
from sysproc.volume_remake import labels_of, no_partition

# Of ext2 and ext3, too: the kernel has one driver for the three.
_KINDS = {"ext2": "ext4", "ext3": "ext4"}
OTHER = "other"


@dataclass(frozen=True)
class Contents:
    """What there is, and what of it is encrypted."""

    filesystems: tuple[Filesystem, ...]
    encryption: str = NONE


def contents_of(fd: int, *, to_be_opened: bool) -> Contents:
    """What is in the parts of an image. Blocks.

    Raises InvalidArgument for what is no usable disk; to_be_opened: also for what is encrypted as nobody reads it here.
    """
    parts = read_disk(fd)
    found = filesystems_of(parts)
    if all(one.type != LUKS for one in found):
        return Contents(found)
    if not to_be_opened:
        with suppress(SysprocError):  # then it is just bytes
            return encrypted(fd, parts, found)
        return Contents(found)
    return encrypted(fd, parts, found)


def encrypted(fd: int, parts: Sequence[Part], found: tuple[Filesystem, ...]) -> Contents:
    """LUKS in some parts. Raises InvalidArgument, … if one of the headers is not read here."""
    for part, one in zip(parts, found, strict=True):
        if one.type == LUKS:
            open_volume(Region(fd, part.offset_bytes, part.size_bytes))
    if not has_gpt(fd):
        return Contents(found, WHOLE)
    return Contents(tuple(replace(one, plain=one.type != LUKS) for one in found), FILESYSTEMS)


def filesystems_of(parts: Sequence[Part]) -> tuple[Filesystem, ...]:
    """These parts as they are recorded. Raises InvalidArgument if there is none."""
    if not parts:
        raise no_partition()
    found = []
    for part, label in zip(parts, labels_of(parts), strict=True):
        kind = OTHER if part.contents is None else _KINDS.get(part.contents.kind, part.contents.kind)
        found.append(Filesystem(label, kind, part.size_bytes, "" if part.contents is None else part.contents.uuid))
    return tuple(found)


def inside_whole(fd: int) -> tuple[Filesystem, ...]:
    """What is in the decrypted file of a volume that is encrypted as a whole. Blocks."""
    return tuple(map(no_more_luks, filesystems_of(read_disk(fd))))


def inside_one(fd: int, filesystem: Filesystem) -> Filesystem:
    """What is in the decrypted file of one partition; it keeps its label and its size. Blocks."""
    (found,) = filesystems_of(read_disk(fd)[:1])
    return replace(no_more_luks(found), label=filesystem.label, size_bytes=filesystem.size_bytes)


def no_more_luks(filesystem: Filesystem) -> Filesystem:
    """What is encrypted twice is nothing that we mount."""
    return replace(filesystem, type=OTHER) if filesystem.type == LUKS else filesystem
