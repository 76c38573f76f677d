"""/sys/fs/TYPE: from which devices filesystems are mounted, anywhere on the host. Not of btrfs: it goes by UUID."""

import os


def mounted_from(fstype: str) -> dict[str, int]:
    """The names of the devices (`loop3`), each with the inode of its directory there: no later mount has the same.

    Other directories that are there (`features`) are among them.
    """
    try:
        with os.scandir(f"/sys/fs/{fstype}") as entries:
            return {entry.name: entry.inode() for entry in entries}
    except FileNotFoundError:
        return {}
