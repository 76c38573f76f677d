"""What is in an image that was received, as a volume's record says it.

Only tables and superblocks are read (`sysproc.storage.vsf.disk`). What becomes of it is decided in
`sysproc.volume_imports`; what is in the filesystems is read elsewhere, in a jail (`sysproc.volume_remake`).
"""

from sysproc.storage.volumes import Filesystem
from sysproc.storage.vsf.disk import read_disk
from sysproc.volume_remake import labels_of, no_partition

# Of ext2 and ext3, too: the kernel has one driver for the three.
_KINDS = {"ext2": "ext4", "ext3": "ext4"}
OTHER = "other"


def filesystems_of(fd: int) -> tuple[Filesystem, ...]:
    """What is in the parts of an image. Raises InvalidArgument for what is no usable disk. Blocks."""
    parts = read_disk(fd)
    if not parts:
        raise no_partition()
    found = []
    for part, label in zip(parts, labels_of(parts), strict=True):
        kind = OTHER if part.contents is None else _KINDS.get(part.contents.kind, part.contents.kind)
        found.append(Filesystem(label, kind, part.size_bytes, "" if part.contents is None else part.contents.uuid))
    return tuple(found)
