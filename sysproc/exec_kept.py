"""What is kept of exec'd processes that have ended, and what is forgotten when.

    it has ended, nobody looks on      its input, and the output that its readers have confirmed
    then, if those of the container    the output of the oldest, until they do not. Never that of the newest one: its
      keep more than KEPT_BYTES        client may just be on its way back
    KEPT newer ones have ended         everything, of some at once: a look at all costs more than a start

Output that was sent and not confirmed is kept: nobody knows whether it has arrived. Nothing is forgotten under a
reader's eyes: who calls makes sure that nobody is attached. The files themselves are `sysproc.exec_files`.
"""

import errno
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from sysproc.errors import NotFound
from sysproc.exec_events import Stream
from sysproc.exec_files import ExecFiles, OpenFiles, all_in, closed_page
from sysproc.isolation.exec_state import Phase, Slot, StatePage
from sysproc.linux.files import punch_hole

# Of each container.
KEPT = 64
KEPT_BYTES = 128 << 20
# So many more may be there before all are looked at. One with so much output is reason enough: without such, all
# that are not looked at keep less than KEPT_BYTES.
MORE = 16
_MUCH = KEPT_BYTES // (KEPT + MORE)
_SECTOR, _BLOCK = 512, 4096
_FREED: Mapping[Stream, Slot] = {"stdout": Slot.STDOUT_FREED, "stderr": Slot.STDERR_FREED}


def forget(files: ExecFiles, before: Mapping[Stream, int] | None) -> None:
    """Free the input of one that has ended, and its output before these offsets; all of it for None. Blocks."""
    with closed_page(files) as page, suppress(NotFound):
        if page is None or page.phase is not Phase.DONE:
            return
        opened = files.open()
        try:
            forget_held(opened, page, before)
        finally:
            opened.close()


def forget_held(opened: OpenFiles, page: StatePage, before: Mapping[Stream, int] | None) -> None:
    """The same, of one whose files are open. Blocks."""
    forget_output(opened, page, before)
    if opened.stdin is not None:
        punch(opened.stdin, 0, os.fstat(opened.stdin).st_size)


def keeps_anything(opened: OpenFiles) -> bool:
    """Whether there is anything that could be forgotten."""
    return any(os.fstat(fd).st_blocks for fd in (opened.stdin, opened.stdout, opened.stderr) if fd is not None)


def kept_bytes(opened: OpenFiles) -> int:
    """How many bytes of disk its output occupies."""
    return sum(os.fstat(fd).st_blocks for fd in (opened.stdout, opened.stderr) if fd is not None) * _SECTOR


def worth_a_look(directory: Path, running: int, last_kept: int) -> bool:
    """Whether `prune` is to look: at so many that are there, of which some run, after one that keeps so much."""
    try:
        return last_kept > _MUCH or len(os.listdir(directory)) - running > KEPT + MORE
    except FileNotFoundError:
        return False


def forget_output(opened: OpenFiles, page: StatePage, before: Mapping[Stream, int] | None) -> None:
    """Free output; said before it is done, since whoever reads looks at it afterwards."""
    fds: dict[Stream, int | None] = {"stdout": opened.stdout, "stderr": opened.stderr}
    for stream, slot in _FREED.items():
        fd = fds[stream]
        if fd is None:
            continue
        size, freed = os.fstat(fd).st_size, page[slot]
        until = size if before is None else min(before.get(stream, 0), size)
        if until > freed:
            page.set_freed(slot, until)
            punch(fd, freed, until)


def punch(fd: int, begin: int, end: int) -> None:
    """Free the blocks between two offsets; the last block of the file too, if it ends there."""
    begin -= begin % _BLOCK
    if end == os.fstat(fd).st_size:
        end += -end % _BLOCK
    if end <= begin:
        return
    try:
        punch_hole(fd, begin, end - begin)
    except OSError as failure:
        if failure.errno != errno.EOPNOTSUPP:  # a filesystem without holes keeps it until the process is forgotten
            raise


def prune(directory: Path, most: int = KEPT, most_bytes: int = KEPT_BYTES) -> list[ExecFiles]:
    """Remove those that have ended, except the newest; of these, the ones whose output is too much. Blocks."""
    looked_at = ((ended_ns(files), files.exec_id, files) for files in all_in(directory))
    newest_first = [files for moment, _, files in sorted(looked_at, reverse=True) if moment]
    for files in newest_first[most:]:
        files.remove()
    kept, sizes = newest_first[:most], [output_blocks(files) for files in newest_first[:most]]
    return [files for at, files in enumerate(kept) if at and sizes[at] and sum(sizes[: at + 1]) > most_bytes]


def ended_ns(files: ExecFiles) -> int:
    """When it ended; 0 if it runs, or is gone just now."""
    with closed_page(files) as page:
        return 0 if page is None or page.phase is not Phase.DONE else page[Slot.ENDED_NS]


def output_blocks(files: ExecFiles) -> int:
    """How many bytes of disk its output occupies."""
    return sum(blocks_of(f"{files.path}/{name}") for name in _FREED)


def blocks_of(path: str) -> int:
    """The same of one file; 0 if there is none."""
    try:
        return os.stat(path).st_blocks * _SECTOR
    except FileNotFoundError:
        return 0
