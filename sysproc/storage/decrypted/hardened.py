"""What every process that is told a secret is, before it is told: locked in memory, not to be looked at, by itself.

    whoever starts it                                        this process (of its own session)
      encrypted file, an fd                  ──────────────▶  VOLUME_FD
      passphrase or key file, in a pipe      ──────────────▶  SECRET_FD, NEW_SECRET_FD: read into locked memory
      ◀── {…} │ {"failed": …} │ EOF: it was killed ─────────  REPORT_FD

Nothing secret is in arguments or environment. What Python cannot wipe: pieces that OpenSSL and the interpreter copied;
they are locked too, and go with the process. The two kinds are `sysproc.storage.decrypted.process` and
`sysproc.storage.decrypted.key_work`; the other end is `sysproc.storage.decrypted.opening`.
"""

import contextlib
import errno
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from sysproc.errors import SysprocError
from sysproc.linux.memory import MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT, SecretBuffer, mlockall
from sysproc.linux.namespaces import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWUTS, unshare
from sysproc.linux.prctl import set_dumpable, set_io_flusher, set_name
from sysproc.linux.unix_sockets import send_with_fds
from sysproc.storage.luks.bounds import MOST_KEY_BYTES
from sysproc.storage.luks.refusals import unusable_key

# Numbers of the fds that it is started with; there is a new secret only where keys are changed.
VOLUME_FD, SECRET_FD, REPORT_FD, NEW_SECRET_FD = 3, 4, 5, 6


def run(name: str, last_fd: int, work: Callable[[socket.socket], None]) -> None:
    """Become such a process, and work; why that failed is reported."""
    report = socket.socket(fileno=REPORT_FD)
    for fd in range(VOLUME_FD, last_fd + 1):
        os.set_inheritable(fd, False)
    os.closerange(last_fd + 1, os.sysconf("SC_OPEN_MAX"))  # what its parent forgot: it would live as long as this
    try:
        harden(name)
        work(report)
    except (SysprocError, OSError) as failure:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            send_with_fds(report, json.dumps({"failed": told(failure)}).encode())
        sys.exit(1)


def harden(name: str) -> None:
    """Before any secret is read: nothing of this process is swapped out, dumped, traced, or ended by a hang-up."""
    set_dumpable(False)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT)
    try:
        set_io_flusher()
    except OSError as failure:
        if failure.errno not in (errno.EPERM, errno.EINVAL):
            raise
    set_name(name)
    # What ends a session or a service must not end the disk below filesystems that are still mounted.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    unshare(CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)
    os.chdir("/")


def read_secret(fd: int) -> SecretBuffer:
    """All that the pipe holds; it is closed then."""
    try:
        return SecretBuffer.read_all(fd, MOST_KEY_BYTES)
    except OSError as failure:
        if failure.errno != errno.EFBIG:
            raise
        raise unusable_key(f"It has more than {MOST_KEY_BYTES} bytes") from None
    finally:
        os.close(fd)


def told(failure: SysprocError | OSError) -> dict[str, Any]:
    """A failure, for the other end to raise again."""
    if isinstance(failure, SysprocError):
        texts = {"brief": failure.brief, "details": failure.details, "resolution": failure.resolution}
        return {"class": type(failure).__name__, "reason": failure.reason, **texts}
    return {"errno": failure.errno, "strerror": failure.strerror, "target": str(failure.filename or "")}
