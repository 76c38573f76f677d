"""The process of one open volume: unlocks it, shows the decrypted data as a file that has no path, and ends with it.

    whoever opens a volume                                   this process (of its own session; outlives all others)
      passphrase or key file, in a pipe  ──────────────────▶  locked memory; not dumpable; no core
      encrypted file, an fd              ──────────────────▶  header checked, key unlocked, FUSE mounted (detached)
                                                              capabilities given up; threads started
      ◀── {"size", "sector_size", "slot", "pid"} + fd ──────  the decrypted file, open
      ◀── {"failed": …}, or EOF: it was killed ─────────────
    loop device on that fd, filesystem on the loop            serves
    last use of the fd is over ───────────────────────────▶   the kernel ends the filesystem: key wiped, exit

Nothing of it is in arguments or environment. `sysproc.storage.decrypted.opening` is the other end. What Python cannot
wipe: pieces that OpenSSL and the interpreter copied; they are locked too, and go with the process.
"""

import contextlib
import errno
import fcntl
import json
import os
import resource
import signal
import socket
import sys
from contextlib import ExitStack
from typing import Any

from sysproc.errors import SysprocError
from sysproc.linux import fuse
from sysproc.linux.capabilities import CAP_IPC_LOCK, keep_only_capability
from sysproc.linux.files import f_ofd_setlk
from sysproc.linux.memory import MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT, SecretBuffer, mlockall
from sysproc.linux.namespaces import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWUTS, unshare
from sysproc.linux.prctl import set_dumpable, set_io_flusher, set_name
from sysproc.linux.unix_sockets import send_with_fds
from sysproc.storage.decrypted.sectors import DecryptedSectors
from sysproc.storage.decrypted.server import MODE, Serving
from sysproc.storage.luks.bounds import MOST_KEY_BYTES
from sysproc.storage.luks.refusals import in_use, unusable_key
from sysproc.storage.luks.region import Region
from sysproc.storage.luks.volume import open_volume, unlock

NAME = "sysproc-volume"
# Numbers of the fds that it is started with.
VOLUME_FD, SECRET_FD, REPORT_FD = 3, 4, 5


def main(arguments: list[str]) -> None:
    """`process OFFSET SIZE [SLOT]`: started by `sysproc.storage.decrypted.opening` only."""
    report = socket.socket(fileno=REPORT_FD)
    for fd in (VOLUME_FD, SECRET_FD, REPORT_FD):
        os.set_inheritable(fd, False)
    os.closerange(REPORT_FD + 1, os.sysconf("SC_OPEN_MAX"))  # what its parent forgot: it would live as long as this
    try:
        harden()
        offset, size = int(arguments[0]), int(arguments[1])
        slot = int(arguments[2]) if len(arguments) > 2 else None
        serve(Region(VOLUME_FD, offset, size), slot, report)
    except (SysprocError, OSError) as failure:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            send_with_fds(report, json.dumps({"failed": told(failure)}).encode())
        sys.exit(1)


def harden() -> None:
    """Before any secret is read: nothing of this process is swapped out, dumped, traced, or ended by a hang-up."""
    set_dumpable(False)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT)
    try:
        set_io_flusher()
    except OSError as failure:
        if failure.errno not in (errno.EPERM, errno.EINVAL):
            raise
    set_name(NAME)
    # What ends a session or a service must not end the disk below filesystems that are still mounted.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    unshare(CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)
    os.chdir("/")


def serve(region: Region, slot: int | None, report: socket.socket) -> None:
    """Unlock, mount, hand over, and serve until the last use of the file is over."""
    with ExitStack() as stack:
        claimed = claim(region)
        header = open_volume(claimed)
        with read_secret() as secret:
            unlocked = unlock(claimed, header, secret.view, slot=slot)
        stack.callback(unlocked.key.close)
        sectors = DecryptedSectors(claimed, header.metadata.segment, unlocked.key.view)
        device_fd = fuse.open_device()
        mount_fd = fuse.fuse_mount(device_fd, MODE)
        keep_only_capability(CAP_IPC_LOCK)  # or what is mapped from now on could not be locked
        serving = Serving(device_fd, sectors)
        facts = {"size": sectors.size, "sector_size": sectors.sector_size, "slot": unlocked.slot, "pid": os.getpid()}
        hand_over(mount_fd, access_mode(claimed.fd), facts, report)
        serving.wait()


def claim(region: Region) -> Region:
    """The same, open once more, and locked as long as this process lives: two would overwrite each other's data.

    Of a file that is open for reading only there may be several readers.
    """
    mode = access_mode(region.fd)
    fd = os.open(f"/proc/self/fd/{region.fd}", mode | os.O_CLOEXEC)
    os.close(region.fd)
    try:
        f_ofd_setlk(fd, region.offset, region.size, shared=mode == os.O_RDONLY)
    except OSError as failure:
        if failure.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        raise in_use() from None
    return Region(fd, region.offset, region.size)


def access_mode(fd: int) -> int:
    """O_RDWR or O_RDONLY."""
    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE


def read_secret() -> SecretBuffer:
    """All that the pipe holds; it is closed then."""
    try:
        return SecretBuffer.read_all(SECRET_FD, MOST_KEY_BYTES)
    except OSError as failure:
        if failure.errno != errno.EFBIG:
            raise
        raise unusable_key(f"It has more than {MOST_KEY_BYTES} bytes") from None
    finally:
        os.close(SECRET_FD)


def hand_over(mount_fd: int, mode: int, facts: dict[str, Any], report: socket.socket) -> None:
    """The file is the receiver's from now on; nothing here keeps it, or the filesystem would never end."""
    try:
        file_fd = os.open(f"/proc/self/fd/{mount_fd}", mode | os.O_CLOEXEC)
    finally:
        os.close(mount_fd)
    try:
        send_with_fds(report, json.dumps(facts).encode(), [file_fd])
    finally:
        os.close(file_fd)
        report.close()


def told(failure: SysprocError | OSError) -> dict[str, Any]:
    """A failure, for the other end to raise again."""
    if isinstance(failure, SysprocError):
        texts = {"brief": failure.brief, "details": failure.details, "resolution": failure.resolution}
        return {"class": type(failure).__name__, "reason": failure.reason, **texts}
    return {"errno": failure.errno, "strerror": failure.strerror, "target": str(failure.filename or "")}


if __name__ == "__main__":
    main(sys.argv[1:])
