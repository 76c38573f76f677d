"""How much storage the output of exec'd processes counts for, against the limits of the containers that they run in.

    runs, or is just being started    what it may become: the bound of each stream, and of its input
    has ended                         what is left of it on the disk

The limits themselves are kept by `sysproc.storage.quotas`; the files by `sysproc.exec_files`.
"""

from collections.abc import Collection

from sysproc.errors import NotFound
from sysproc.exec_files import Asked, ExecFiles, all_in, closed_page
from sysproc.exec_handle import STDIN_BOUND
from sysproc.ids import to_hex
from sysproc.isolation.exec_state import Phase
from sysproc.storage.state_dir import StateDir

BLOCK_BYTES = 512


def output_bytes(state_dir: StateDir, container_ids: Collection[int]) -> int:
    """Of all processes of these containers. Blocks."""
    directories = (state_dir.container(to_hex(one)).execs for one in container_ids)
    return sum(counted_bytes(files) for directory in directories for files in all_in(directory))


def declared_bytes(asked: Asked) -> int:
    """What one process may make of it while it runs."""
    streams = 1 if asked.terminal else 2
    return streams * asked.spool_bytes + (STDIN_BOUND if asked.stdin or asked.terminal else 0)


def counted_bytes(files: ExecFiles) -> int:
    """Of one process; 0 if it is gone just now."""
    with closed_page(files) as page:
        ended = page is not None and page.phase is Phase.DONE
    try:
        return stored_bytes(files) if ended else declared_bytes(files.asked())
    except (NotFound, FileNotFoundError):
        return 0


def stored_bytes(files: ExecFiles) -> int:
    """What the files of one process occupy."""
    return sum(entry.stat().st_blocks * BLOCK_BYTES for entry in files.path.iterdir())
