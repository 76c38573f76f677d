"""The processes of open volumes, found again by who has not started them: by what they are called and have open.

Only looking belongs here; what they are is in `sysproc.storage.decrypted.process`.
"""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from sysproc.storage.decrypted.process import NAME

# It ends while it is looked at.
_GONE = (errno.ENOENT, errno.ESRCH)


def processes_with(file: Path) -> list[int]:
    """The pids of those that have this file open. Blocks."""
    wanted = os.stat(file)
    every = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in every if _is_called(pid) and any(os.path.samestat(wanted, one) for one in _open_files(pid))]


def _is_called(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().rstrip("\n") == NAME
    except OSError as failure:
        if failure.errno not in _GONE:
            raise
        return False


def _open_files(pid: int) -> Iterator[os.stat_result]:
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            yield os.stat(f"/proc/{pid}/fd/{fd}")
    except OSError as failure:
        if failure.errno not in _GONE:
            raise
