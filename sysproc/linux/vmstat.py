"""/proc/vmstat (proc(5)): what the host's memory is used for. It counts all of the host, whatever cgroup asks."""

import os
import re
from pathlib import Path

_UNWRITTEN = re.compile(rb"^(?:nr_dirty|nr_writeback) (\d+)$", re.MULTILINE)
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def unwritten_bytes() -> int:
    """What files have in memory that is on no disk yet, of all filesystems."""
    return sum(int(pages) for pages in _UNWRITTEN.findall(Path("/proc/vmstat").read_bytes())) * _PAGE_BYTES
