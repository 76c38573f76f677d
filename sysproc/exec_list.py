"""The exec'd processes of a container, as a list: read from their directories, none of them is held for it.

How one is looked at for longer is in `sysproc.exec_held`.
"""

from contextlib import suppress
from pathlib import Path

from sysproc.errors import NotFound
from sysproc.exec_events import ExecInfo
from sysproc.exec_files import ExecFiles, all_in, closed_page
from sysproc.exec_handle import exited
from sysproc.isolation.exec_state import Slot


def list_execs(directory: Path) -> list[ExecInfo]:
    """All that are kept, oldest first. Blocks."""
    infos = [info for files in all_in(directory) if (info := info_of(files)) is not None]
    return sorted(infos, key=lambda info: (info.started_at, info.exec_id))


def info_of(files: ExecFiles) -> ExecInfo | None:
    """One of a list; None if it was never started, or is gone just now."""
    with closed_page(files) as page, suppress(NotFound):
        if page is None:
            return None
        asked = files.asked()
        end = exited(page, asked)
        return ExecInfo(
            exec_id=files.exec_id,
            argv=asked.argv,
            terminal=asked.terminal,
            started_at=page[Slot.STARTED_NS] / 1e9 or asked.asked_at,
            pid=None if end is not None else page[Slot.PID_INSIDE],
            exited=end,
        )
    return None
