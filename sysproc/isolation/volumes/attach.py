"""A filesystem of a volume, mounted into a container that runs.

    job (forked by the launcher)                          K (its child)
      part of the file -> loop; own mount namespace
      mount, flags set
      idmap; attached at the frame
      fork ──────────────────────────────────────────────▶ user namespace of the container, its uid 0
                                                           own mount namespace: a copy, so that all flags are locked
                                                           a detached copy of what is at the frame
                                                           mount namespace of the container: the host's is gone
                                                           the path, walked below the container's root
                                                           attached there
      {"mount": id, "device": "major:minor"} ◀──────────── MOUNTED id │ FAILED errno target

A path is only ever walked by K, after it has left the host's mounts: whatever the container puts there (links, other
mounts, what changes meanwhile) leads to a place of the container's own. Which ids of the volume are which of the
container's:

    own      the same: its root owns what root owns in the volume
    none     none of them: everything can be read that all may read, nothing written, no socket connected to, no
             set-uid bit counts. A read-only mount without that is a way to talk in both directions; what is left of
             it (locks, watches) is tabled in docs/ISOLATION.md.

How it is taken out again is in `sysproc.isolation.volumes.detach`.
"""

import errno
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from sysproc.failpoints import failpoint
from sysproc.isolation.builder import enter_own_mount_namespace, error_of, failure_message
from sysproc.isolation.root_mount import idmap
from sysproc.isolation.volumes.decrypted_devices import decrypted_device
from sysproc.isolation.volumes.devices import SHARED, Use, device_of
from sysproc.isolation.volumes.mount_table import mounts_of
from sysproc.linux.files import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from sysproc.linux.mounts import (
    AT_FDCWD,
    MNT_DETACH,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    OPEN_TREE_CLONE,
    move_mount,
    new_mount,
    open_tree,
    umount2,
)
from sysproc.linux.namespaces import CLONE_NEWNS, CLONE_NEWUSER, clone3, setns, unshare
from sysproc.linux.prctl import set_dumpable, set_pdeathsig

Values = Mapping[str, Any]

# An id that no file has; all others are outside of a map that has only this one.
NO_ID, OVERFLOW_ID = 0xFFFFFFFE, 65534
_HOW = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
# Whatever is missing on the way to the mount point.
_DIRECTORY_MODE = 0o755


@dataclass(frozen=True)
class Wanted:
    """What is to be mounted, and how. path: absolute, in the container, without `..`."""

    file: Path
    fstype: str
    options: Mapping[str, str | None]
    offset: int
    size: int
    path: bytes
    read_only: bool
    suid: bool
    noexec: bool
    own_ids: bool
    frame: Path
    use: Use = SHARED

    @classmethod
    def from_values(cls, values: Values) -> "Wanted":
        """As the daemon sends it."""
        names = ("fstype", "options", "offset", "size", "read_only", "suid", "noexec", "own_ids")
        known = {name: values[name] for name in names}
        path = bytes.fromhex(values["path"])
        uses = {"exclusive": "exclusive", "direct_io": "direct_io", "read_only": "snapshot"}
        use = Use(**{name: values.get(said, False) for name, said in uses.items()})
        return cls(file=Path(values["file"]), path=path, frame=Path(values["frame"]), use=use, **known)

    @property
    def attributes(self) -> int:
        """MOUNT_ATTR_*: never devices; no set-uid programs unless they are wanted."""
        chosen = {MOUNT_ATTR_RDONLY: self.read_only, MOUNT_ATTR_NOSUID: not self.suid, MOUNT_ATTR_NOEXEC: self.noexec}
        return MOUNT_ATTR_NODEV | sum(flag for flag, wanted in chosen.items() if wanted)


def attach(values: Values, fds: Sequence[int], _: socket.socket) -> Mapping[str, Any]:
    """The job; fds: the pidfd of the container's init; the decrypted file of an encrypted volume, if it was opened
    just now. The id is what mountinfo says (proc(5)).
    """
    wanted, (init_pidfd, *decrypted) = Wanted.from_values(values), fds
    with ExitStack() as stack:
        # Opened in the host's mounts: by its path there a device's file is known, and a namespace's own end with it.
        with device_for(wanted, values.get("encrypted"), decrypted) as device:
            enter_own_mount_namespace()
            volume = new_mount(wanted.fstype, {"source": device, **wanted.options}, wanted.attributes)
        stack.callback(os.close, volume)
        failpoint("volumes.attach.after_mount")
        userns = user_namespace(init_pidfd) if wanted.own_ids else user_namespace_without_ids()
        stack.callback(os.close, userns)
        idmap(volume, userns)
        move_mount(volume, AT_FDCWD, wanted.frame)
        # Before anybody is told: until then the device has one more user.
        stack.callback(umount2, wanted.frame, MNT_DETACH)
        failpoint("volumes.attach.after_frame")
        number = int(in_child(lambda: str(enter(volume, init_pidfd, wanted.path)).encode()))
    mounted = next((one for one in mounts_of(pid_of(init_pidfd)) if one.id == number), None)
    if mounted is None:
        raise OSError(errno.ENOENT, "taken away again", os.fsdecode(wanted.path))
    return {"mount": number, "device": mounted.device}


def device_for(
    wanted: Wanted, encrypted: Mapping[str, Any] | None, decrypted: Sequence[int]
) -> AbstractContextManager[str]:
    """The block device of the filesystem, over the volume's file or over what is decrypted of it."""
    if encrypted is not None:
        place = {"offset": wanted.offset, "size": wanted.size}
        use = Use(exclusive=wanted.use.exclusive)
        return decrypted_device(wanted.file, {**encrypted, **place}, decrypted, partial(device_of, use=use))
    return device_of(wanted.file, wanted.offset, wanted.size, use=wanted.use)


def user_namespace(pidfd: int) -> int:
    """The user namespace of a process. OSError(ESRCH) if it has ended."""
    pid = pid_of(pidfd)
    fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        pid_of(pidfd)  # still the same process: so the file was its own
    except OSError:
        os.close(fd)
        raise
    return fd


def pid_of(pidfd: int) -> int:
    """The pid of a process, from the fdinfo of its pidfd (pidfd_open(2)). OSError(ESRCH) once it was reaped."""
    lines = Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines()
    pid = next(int(line.split()[1]) for line in lines if line.startswith("Pid:"))
    if pid <= 0:
        raise OSError(errno.ESRCH, os.strerror(errno.ESRCH), "the container has ended")
    return pid


def user_namespace_without_ids() -> int:
    """A user namespace that maps no id which a file has: for mounts that give away nothing but what all may read."""
    ours, theirs = socket.socketpair()
    pid, pidfd = clone3(CLONE_NEWUSER)
    if pid == 0:
        ours.close()
        theirs.recv(1)
        os._exit(0)
    theirs.close()
    try:
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{pid}/{name}").write_text(f"{NO_ID} {OVERFLOW_ID} 1\n")
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        ours.close()
        os.close(pidfd)
        os.waitpid(pid, 0)


def in_child(work: Callable[[], bytes]) -> bytes:
    """What a forked child says at its end; its OSError is raised here."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.close()
        _live(theirs, work)
    theirs.close()
    with ours:
        said = ours.recv(4096)
    os.waitpid(pid, 0)
    if said.startswith(b"{"):
        raise error_of(said)
    if not said:
        raise OSError(errno.ECHILD, os.strerror(errno.ECHILD), "what was to mount the volume was killed")
    return said


def _live(report: socket.socket, work: Callable[[], bytes]) -> NoReturn:
    try:
        set_pdeathsig(signal.SIGKILL)
        set_dumpable(False)
        report.send(work())
    except OSError as failure:
        report.send(failure_message(failure))
    finally:
        os._exit(0)


def enter(volume: int, init_pidfd: int, path: bytes) -> int:
    """K: see the drawing above. Returns the mount's id.

    The working directory comes along into a copied mount namespace, an fd does not.
    """
    os.fchdir(volume)
    setns(init_pidfd, CLONE_NEWUSER)
    become_root_inside()
    unshare(CLONE_NEWNS)
    locked = open_tree(AT_FDCWD, ".", OPEN_TREE_CLONE)
    failpoint("volumes.attach.after_lock")
    number = mount_id(locked)
    setns(init_pidfd, CLONE_NEWNS)
    target = mount_point(path)
    failpoint("volumes.attach.before_move")
    move_mount(locked, target, "")
    return number


def become_root_inside() -> None:
    """Uid 0 of the user namespace that was just entered, and so the owner of what is made there."""
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    set_pdeathsig(signal.SIGKILL)  # a change of ids has cleared it


def mount_id(fd: int) -> int:
    """The id of the mount that a file is on (proc(5), /proc/PID/fdinfo)."""
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("mnt_id:"))


def mount_point(path: bytes) -> int:
    """The directory at this path below our root, made if it is missing; an O_PATH fd.

    OSError with the part of the path that is the trouble.
    """
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if not path.strip(b"/"):
        raise OSError(errno.EBUSY, "the root itself is no mount point", "/")
    parts = [part for part in path.split(b"/") if part]
    at = root
    for count in range(1, len(parts) + 1):
        part = b"/" + b"/".join(parts[:count])
        try:
            at = _step(root, at, part, parts[count - 1])
        except OSError as failure:
            raise OSError(failure.errno, failure.strerror, os.fsdecode(part)) from None
    return at


def _step(root: int, parent: int, path: bytes, name: bytes) -> int:
    try:
        return _walked(root, path)
    except FileNotFoundError:
        os.mkdir(name, _DIRECTORY_MODE, dir_fd=parent)
        return _walked(root, path)


def _walked(root: int, path: bytes) -> int:
    """An O_PATH fd of a directory below the root."""
    return openat2(root, path, os.O_PATH | os.O_DIRECTORY, resolve=_HOW)
