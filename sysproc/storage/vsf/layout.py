"""Where the partitions of a fresh virtual storage file go: one after the other, from and to whole MiB.

    0        1 MiB                                    usable end      end of the file
    |  table  | first | second | … | last (the rest)  |  backup table  |

How the table is written is in `sysproc.storage.vsf.gpt`, which types there are in
`sysproc.storage.vsf.partition_types`.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sysproc.errors import InvalidArgument
from sysproc.storage.vsf.gpt import ALIGNMENT, Gpt, Partition, usable_end
from sysproc.storage.vsf.partition_types import type_of

# In front of the first partition, and behind the last.
TABLES_BYTES = 2 * ALIGNMENT


@dataclass(frozen=True)
class Wanted:
    """A partition that is asked for; None: what is left, for the last one only."""

    label: str
    size_bytes: int | None


def aligned(size_bytes: int) -> int:
    """The least size of whole MiB that holds so many bytes."""
    return -(-size_bytes // ALIGNMENT) * ALIGNMENT


def least_disk_bytes(sizes: Sequence[int]) -> int:
    """How large a file with partitions of these sizes is at least."""
    return TABLES_BYTES + sum(map(aligned, sizes))


def plan(wanted: Sequence[Wanted], disk_bytes: int) -> Gpt:
    """The table of a file of this size. Raises InvalidArgument for partitions that do not fit."""
    offset, end, partitions = ALIGNMENT, usable_end(disk_bytes), []
    for one in wanted:
        size = end - offset if one.size_bytes is None else aligned(one.size_bytes)
        if size <= 0 or offset + size > end:
            raise does_not_fit(wanted, disk_bytes)
        partitions.append(Partition(type_of(one.label), uuid.uuid4(), offset, size, one.label))
        offset += size
    return Gpt(uuid.uuid4(), disk_bytes, tuple(partitions))


def does_not_fit(wanted: Sequence[Wanted], disk_bytes: int) -> InvalidArgument:
    """The error for more than the file has room for."""
    least = least_disk_bytes([one.size_bytes or ALIGNMENT for one in wanted])
    return InvalidArgument(
        f"The filesystems do not fit into {disk_bytes} bytes.",
        details=f"With the partition table, at both ends, they need {least} at least.",
        resolution="Ask for a larger volume, or for smaller filesystems.",
        reason="BAD_LAYOUT",
        metadata={"least_bytes": str(least)},
    )
