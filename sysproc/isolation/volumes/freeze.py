"""The filesystems of a volume, frozen while a block lasts: a copy of the file is then one of a single moment.

    job (forked by the launcher)                     G (its child: dies with nobody)
      a detached mount of each filesystem that is
      mounted, by its loop device
      fork ─────────────────────────────────────────▶ waits for the end of a pipe
      FIFREEZE each; the block; FITHAW each
      closes the pipe, or dies ─────── EOF ─────────▶ FITHAW each; exits

The kernel thaws nothing by itself. So either of the two does when the other is killed; when both are, `thaw` does: the
daemon runs it after a job that was killed, and at its start for every volume that has a loop device. Which filesystem
is mounted is asked of sysfs: a device that holds none is somebody's raw disk, of whose writes nothing is known.

Of an encrypted volume the filesystems are on devices over what is decrypted. What they have given out when they are
frozen is flushed down through these, so that all of it is in the encrypted file.
"""

import errno
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from sysproc.failpoints import failpoint
from sysproc.isolation.builder import enter_own_mount_namespace
from sysproc.isolation.volumes.decrypted_devices import named_devices
from sysproc.linux.freeze import fifreeze, fithaw
from sysproc.linux.loop import loop_get_status64, loops_backed_by
from sysproc.linux.mounts import new_mount

Values = Mapping[str, Any]
# Those that are written; what is only read needs no freezing.
FROZEN, READ_ONLY = ("ext4", "btrfs", "xfs"), ("erofs", "squashfs")
FREE = -1
# Between the end of the last mount and the end of its device.
PATIENCE_S, _PAUSE_S = 5.0, 0.01
_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


@dataclass(frozen=True)
class Places:
    """Where the filesystems of a file may be mounted from. parts: their types, by the place in the file, in bytes;
    inside: of what is decrypted, by the number of the filesystem.
    """

    file: Path
    parts: Mapping[int, str]
    inside: Sequence[str]

    @classmethod
    def read(cls, values: Values) -> "Places":
        """As the daemon sends it."""
        return cls(Path(values["file"]), {place: kind for place, kind, *_ in values["parts"]}, values["inside"])

    def devices(self) -> Mapping[str, str]:
        """The loop devices that there are, each with the type of what is on it; empty: none that we know."""
        below = {device for device in loops_backed_by(self.file) if not is_mapped(device)}
        offsets = {device: offset_of(device) for device in below}
        found = {device: self.parts.get(offset, "") for device, offset in offsets.items() if offset != FREE}
        if self.inside:
            there = os.stat(self.file)
            ours = {path: name.filesystem for path, name in named_devices().items() if name.is_of(there)}
            found.update({path: self.inside[number] for path, number in ours.items() if number is not None})
        return found


def is_mapped(device: str) -> bool:
    """Whether device mapper has it below a device of its own (sysfs, `holders`): that one is looked at itself."""
    try:
        return any(Path("/sys/block", Path(device).name, "holders").iterdir())
    except FileNotFoundError:  # the device went away
        return False


def thaw(values: Values, _: Sequence[int], __: socket.socket) -> Mapping[str, Any]:
    """The job: whatever is frozen of these `volumes` goes on; each as `Places` reads it.

    failed: devices with the errno; of one that has shut down or is only read since an error nothing can be opened.
    """
    enter_own_mount_namespace()
    thawed, failed = 0, []
    for one in values["volumes"]:
        for device, kind in Places.read(one).devices().items():
            try:
                thawed += thaw_device(kind, device)
            except OSError as failure:
                failed.append((device, failure.errno))
    return {"thawed": thawed, "failed": failed}


def thaw_device(kind: str, device: str) -> bool:
    """Whether a filesystem was mounted from it, and frozen."""
    if kind not in FROZEN or not is_mounted(kind, device):
        return False
    top = top_of(kind, device)
    try:
        return thaw_one(top)
    finally:
        os.close(top)


def thaw_one(top: int) -> bool:
    """Whether it was frozen."""
    try:
        fithaw(top)
    except OSError as failure:
        if failure.errno != errno.EINVAL:
            raise
        return False
    return True


@contextmanager
def frozen(places: Places) -> Iterator[None]:
    """While the block lasts nothing is written into the filesystems of a file. In a mount namespace of its own.

    OSError(EBUSY): a loop device has it, and no filesystem is mounted from that.
    """
    refuse_raw(places)
    with opened(places) as tops, guarded(list(tops.values())):
        for device, top in tops.items():
            fifreeze(top)
            failpoint("volumes.freeze.after_freeze")
            if places.inside:
                flush(device)
        yield


@contextmanager
def opened(places: Places) -> Iterator[Mapping[str, int]]:
    """The top directories of the filesystems of a file that are mounted anywhere, by their devices."""
    with ExitStack() as stack:
        tops = {}
        for device, kind in places.devices().items():
            if kind in FROZEN and is_mounted(kind, device):
                tops[device] = top_of(kind, device)
                stack.callback(os.close, tops[device])
        yield tops


def refuse_raw(places: Places) -> None:
    """OSError(EBUSY) for a raw disk; a device that goes away with the last mount is waited for."""
    deadline = time.monotonic() + PATIENCE_S
    while (raw := raw_devices(places)) and time.monotonic() < deadline:
        time.sleep(_PAUSE_S)
    if raw:
        raise OSError(errno.EBUSY, "in use as a raw disk", ", ".join(raw))


def raw_devices(places: Places) -> list[str]:
    """The loop devices of a file from which no filesystem that we know is mounted."""
    devices = places.devices().items()
    return [device for device, kind in devices if kind not in READ_ONLY and not is_mounted(kind, device)]


def flush(device: str) -> None:
    """What was written to it is in the file below all of its devices, and on the disk."""
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def offset_of(device: str) -> int:
    """Where in its file a loop device begins; FREE if it is that by now."""
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(loop_get_status64(fd).lo_offset)
    except OSError as failure:
        if failure.errno != errno.ENXIO:
            raise
        return FREE
    finally:
        os.close(fd)


def is_mounted(kind: str, device: str) -> bool:
    """Whether there is a filesystem of this type from the device, mounted or still used (sysfs, `fs/TYPE`)."""
    name, known = Path(device).name, Path("/sys/fs", kind)
    return bool(kind) and ((known / name).exists() or any(known.glob(f"*/devices/{name}")))


def top_of(kind: str, device: str) -> int:
    """The top directory of a filesystem that is mounted already; the fd keeps it."""
    mounted = new_mount(kind, {"source": device})
    try:
        return os.open(f"/proc/self/fd/{mounted}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(mounted)


@contextmanager
def guarded(tops: Sequence[int]) -> Iterator[None]:
    """G lives while the block does; at its end, or at our death, nothing of these is frozen."""
    if not tops:
        yield
        return
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        guard(theirs, tops)
    theirs.close()
    try:
        yield
    finally:
        for top in tops:
            thaw_one(top)
        ours.close()
        os.waitpid(pid, 0)


def guard(waiting: socket.socket, tops: Sequence[int]) -> NoReturn:
    """G: nobody sends anything; the pipe ends when the other end is closed, by whatever."""
    try:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        waiting.recv(1)
        for top in tops:
            with suppress(OSError):  # the others are to go on all the same; there is nobody to be told
                thaw_one(top)
    finally:
        os._exit(0)
