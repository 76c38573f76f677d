"""Programs of the host that a job runs, trusted ones on input of ours; they die with it.

Which command lines there are is in `sysproc.isolation.mkfs`; what is run on the input of others is jailed
(`sysproc.isolation.tool_jail`).
"""

import errno
import os
import signal
from collections.abc import Sequence
from functools import partial

from sysproc.isolation import mkfs
from sysproc.linux.prctl import set_pdeathsig


def run_tool(*command: str, pass_fds: Sequence[int] = ()) -> str:
    """Run a program of the host; what it prints. OSError with its own words if it fails, ENOPKG if it is not installed.

    EIO, or ENOSPC if the words say so: when somebody looks at the disk it may have room again. The tool dies with the
    job: the signal that the job dies by is none that the kernel would pass on.
    """
    import subprocess  # noqa: PLC0415 - not in the launcher's memory

    try:
        done = subprocess.run(
            command,
            pass_fds=pass_fds,
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
            preexec_fn=partial(die_with, os.getpid()),  # safe: a job has one thread
        )
    except FileNotFoundError:
        package = mkfs.PACKAGES[command[0]]
        raise OSError(errno.ENOPKG, "not installed", f"{command[0]} (install {package})") from None
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip()[:500]
        number = errno.ENOSPC if os.strerror(errno.ENOSPC) in words else errno.EIO
        raise OSError(number, "failed", f"{command[0]}: {words}")
    return done.stdout.decode(errors="replace")


def die_with(parent: int) -> None:
    """In the tool, before it is executed: SIGKILL when the parent ends, also if it has ended just now."""
    set_pdeathsig(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
