"""A process whose supervisor was killed: what has to be done before its end is written down in the supervisor's place.

The kernel kills it together with its supervisor (PR_SET_PDEATHSIG), unless it is set-uid: execve(2) clears that. How
supervisors live is in `sysproc.exec_held`, what they publish in `sysproc.isolation.exec_state`.
"""

import os
import signal
from pathlib import Path

from sysproc.isolation.exec_state import Phase, Slot, StatePage
from sysproc.linux.pidfd import pidfd_open, pidfd_send_signal
from sysproc.linux.process import start_time


def end_left_behind(page: StatePage) -> None:
    """SIGKILL to the process of this page, if it still runs. Only for a page that has no supervisor any more."""
    if page.phase is not Phase.RUNNING:
        return
    pid = page[Slot.PID]
    try:
        pidfd = pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if is_it(page, pid):
            pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)


def is_it(page: StatePage, pid: int) -> bool:
    """Whether a pid, held by a pidfd, is the page's process, and no other that came later or after a reboot."""
    return start_time(pid) == page[Slot.PID_START] and pid_inside(pid) == page[Slot.PID_INSIDE]


def pid_inside(pid: int) -> int | None:
    """The pid in its own PID namespace (NSpid of proc(5)); None if that is ours, or if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    numbers = [line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")]
    return int(numbers[0][-1]) if numbers and len(numbers[0]) > 1 else None
