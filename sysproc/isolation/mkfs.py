"""Making filesystems: the command line of each kind's mkfs, and the Debian package that has it.

    ext4     mke2fs       e2fsprogs       at any place of a file
    btrfs    mkfs.btrfs   btrfs-progs     over a whole file: these two know no offset
    xfs      mkfs.xfs     xfsprogs

That they run in a job is the business of `sysproc.isolation.jobs`; the least size of each is in docs/VSF.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

EXT4_BLOCK = 4096
# metadata_csum_seed: a clone gets another UUID without rewriting every checksum; no lost+found, no reserved blocks.
_MKE2FS = (
    "mke2fs",
    "-q",
    "-F",
    "-t",
    "ext4",
    "-b",
    str(EXT4_BLOCK),
    "-m",
    "0",
)
_FEATURES = "metadata_csum,metadata_csum_seed"
# Descriptors of new groups go into the groups themselves. Room for them beforehand would have to be written: 4.5 MiB
# of 64 GiB, and five times as long for each copy.
_GROWS_BY_META_BG = "meta_bg,^resize_inode"
# Bitmaps and tables of so many groups are beside each other: of 64 GiB, all; two thirds of the pieces to be copied.
_IN_ONE_PLACE = ("-G", "512")
_EXTENDED = "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0"

PACKAGES = {
    "mke2fs": "e2fsprogs",
    "resize2fs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.xfs": "xfsprogs",
    "btrfs": "btrfs-progs",
    "xfs_repair": "xfsprogs",
    "fsck.erofs": "erofs-utils",
    "mkfs.erofs": "erofs-utils",
    "mksquashfs": "squashfs-tools",
    "xfs_db": "xfsprogs",
}


@dataclass(frozen=True)
class Identity:
    """By what a filesystem is known; a UUID of 36 characters."""

    label: str
    uuid: str


def ext4_at(path: str, offset: int, size: int, inodes: int | None) -> Sequence[str]:
    """ext4 for the root of a container, at this place of a file; for as many inodes as are wanted."""
    many = () if inodes is None else ("-N", str(inodes))
    return (
        *_MKE2FS,
        *("-O", _FEATURES),
        *("-E", f"{_EXTENDED},offset={offset}"),
        *many,
        path,
        str(size // EXT4_BLOCK),
    )


def _ext4(path: str, identity: Identity) -> Sequence[str]:
    features = f"{_FEATURES},{_GROWS_BY_META_BG}"
    return (*_MKE2FS, *_IN_ONE_PLACE, "-O", features, "-E", _EXTENDED, "-L", identity.label, "-U", identity.uuid, path)


def _btrfs(path: str, identity: Identity) -> Sequence[str]:
    return ("mkfs.btrfs", "-q", "-f", "--nodiscard", "-L", identity.label, "-U", identity.uuid, path)


def _xfs(path: str, identity: Identity) -> Sequence[str]:
    # The size of a stripe is that of the disk below, of which nothing is known where the file will be carried.
    return ("mkfs.xfs", "-q", "-f", "-K", "-d", "noalign", "-L", identity.label, "-m", f"uuid={identity.uuid}", path)


# Each makes it over the whole file.
MKFS: dict[str, Callable[[str, Identity], Sequence[str]]] = {"ext4": _ext4, "btrfs": _btrfs, "xfs": _xfs}
