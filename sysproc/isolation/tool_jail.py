"""A jail for a tool of the host that reads what comes from outside: fsck; mkfs.erofs and mksquashfs.

    job (forked by the launcher; own mount namespace)                  J (its child)
      part of the file -> loop, read-only unless it is to be repaired
      tmpfs: the host's programs, read-only; /dev/image, J's own       as the jail's base uid: waits
      id maps; GO ───────────────────────────────────────────────────▶ uid 0 of its namespace; that tmpfs is its root
      back into the host's mount namespace                             rlimits; seccomp `strict`
      its output, as much as is kept, and its end ◀──────────────────  execve of the tool

A tool that the image has taken over can say what it wants, and write into this part of the file if it is to be
repaired: that is a copy then. It has no network, no /proc, no file of the host but its programs. The jail for what
is unpacked here, by ourselves, is `sysproc.isolation.jail`; the command lines are in `sysproc.isolation.fsck`.
"""

import errno
import os
import resource
import socket
import stat
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from sysproc.isolation import mkfs
from sysproc.isolation.builder import Born, bear_as, enter_own_mount_namespace, error_of
from sysproc.isolation.fsck import FSCK
from sysproc.isolation.inside import become_root, enter_attached_root, make_it_the_root
from sysproc.isolation.jail import RLIMITS, map_ids
from sysproc.isolation.root_mount import idmap, mount_detached
from sysproc.linux.loop import LO_FLAGS_AUTOCLEAR, LO_FLAGS_DIRECT_IO, LO_FLAGS_READ_ONLY, loop_configure
from sysproc.linux.mounts import (
    AT_FDCWD,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    OPEN_TREE_CLONE,
    mount_setattr,
    move_mount,
    new_mount,
    open_tree,
)
from sysproc.linux.namespaces import CLONE_NEWNS, setns
from sysproc.linux.seccomp import load_filter
from sysproc.linux.unix_sockets import send_with_fds

Values = Mapping[str, Any]

IMAGE, CONTENT = "/dev/image", "/content"
# Of what a tool says: the beginning, where the first error is.
OUTPUT_BYTES = 32 << 10
_PROGRAMS = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT = {"PATH": _PATH, "LANG": "C", "LC_ALL": "C", "HOME": "/"}
_NULL = os.makedev(1, 3)


def check(values: Values, fds: Sequence[int], _: socket.socket) -> Mapping[str, Any]:
    """The job; fds: the file. values: type and mode (`sysproc.isolation.fsck`); and those of the jail."""
    command = [*FSCK[values["type"]].command(values["mode"]), IMAGE]
    status, output = in_tool_jail(values, fds[0], command, writable=values["mode"] != "look")
    return {"status": status, "output": output}


def in_tool_jail(
    values: Values, image: int, command: Sequence[str], *, writable: bool, content: int | None = None
) -> tuple[int, str]:
    """The exit status of a tool, and what it has said. values: part of the image, uid range, frame, filter.

    block_size: of a decrypted file. content: a whole file with an ext4 of ours, to be read at /content.
    """
    program = program_of(command)
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    enter_own_mount_namespace()
    block_size = values.get("block_size", 0)
    flags = LO_FLAGS_AUTOCLEAR | (0 if writable else LO_FLAGS_READ_ONLY) | (LO_FLAGS_DIRECT_IO if block_size else 0)
    where = {"offset": values["offset"], "size": values["size"], "block_size": block_size}
    device, _path = loop_configure(image, **where, flags=flags)
    reader, writer = os.pipe()
    live = partial(_inside, values=values, program=program, command=command, writer=writer)
    born = bear_as(values["uid_base"], live)
    os.close(writer)
    map_ids(born, values)
    root = root_with(Path(values["frame"]), os.fstat(device).st_rdev, values["uid_base"])
    if content is not None:
        attach_content(born, content, Path(values["frame"]))
    send_with_fds(born.go, b"GO", [root])
    setns(home, CLONE_NEWNS)
    output = bounded(reader)
    status = ended(born)
    if writable:
        os.fsync(device)
    os.close(device)
    return status, output.decode(errors="replace")


def attach_content(born: Born, content: int, frame: Path) -> None:
    """Let J read what is in this file, with the ids that it has there."""
    mounted = mount_detached(content, fstype="ext4", offset=0, size=os.fstat(content).st_size)
    userns = os.open(f"/proc/{born.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    idmap(mounted, userns)
    os.close(userns)
    mount_setattr(mounted, "", set_=MOUNT_ATTR_RDONLY)
    here = Path(f"{frame}{CONTENT}")
    here.mkdir()
    move_mount(mounted, AT_FDCWD, here)
    os.close(mounted)


def program_of(command: Sequence[str]) -> str:
    """Where the program is. ENOPKG if it is not installed."""
    for directory in _PATH.split(":"):
        if os.access(program := f"{directory}/{command[0]}", os.X_OK):
            return program
    raise OSError(errno.ENOPKG, "not installed", f"{command[0]} (install {mkfs.PACKAGES[command[0]]})")


def root_with(frame: Path, device: int, uid: int) -> int:
    """A root, attached at the frame, with the host's programs and one block device that is this uid's."""
    root = new_mount("tmpfs", {"mode": "0755", "size": "1M"}, MOUNT_ATTR_NOSUID)
    move_mount(root, AT_FDCWD, frame)
    for name in _PROGRAMS:
        host, here = Path("/", name), frame / name
        if host.is_symlink():
            here.symlink_to(os.readlink(host))
        elif host.is_dir():
            here.mkdir()
            programs = open_tree(AT_FDCWD, host, OPEN_TREE_CLONE)
            mount_setattr(programs, "", set_=MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
            move_mount(programs, AT_FDCWD, here)
            os.close(programs)
    for table in ("proc/mounts", "etc/mtab"):  # nothing is mounted, as far as a tool has to know
        (frame / table).parent.mkdir()
        (frame / table).touch()
    (frame / "dev").mkdir()
    os.mknod(frame / "dev/null", stat.S_IFCHR, _NULL)
    os.chmod(frame / "dev/null", 0o666)
    os.mknod(f"{frame}{IMAGE}", stat.S_IFBLK | 0o600, device)
    os.chown(f"{frame}{IMAGE}", uid, uid)
    return root


def _inside(go: socket.socket, *, values: Values, program: str, command: Sequence[str], writer: int) -> NoReturn:
    """J's life."""
    become_root(go)
    make_it_the_root(enter_attached_root(go))
    null = os.open("/dev/null", os.O_RDWR)
    for fd, number in ((null, 0), (writer, 1), (writer, 2)):
        os.dup2(fd, number)
    for limit, values_of_it in RLIMITS.items():
        resource.setrlimit(limit, values_of_it)
    load_filter(bytes.fromhex(values["seccomp_filter"]))
    os.execve(program, list(command), _ENVIRONMENT)


def bounded(reader: int) -> bytes:
    """What comes until the end, of which the beginning is kept."""
    kept = b""
    with open(reader, "rb", buffering=0) as pipe:
        while piece := pipe.read(65536):
            kept += piece[: OUTPUT_BYTES - len(kept)]
    return kept


def ended(born: Born) -> int:
    """The tool's exit status. OSError: it never came to be one, or was killed."""
    said = born.go.recv(8192)
    _, status = os.waitpid(born.pid, 0)
    if said:
        raise error_of(said)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        raise OSError(errno.ECHILD, "killed", f"the tool was ended by signal {-code}: it may have met a limit")
    return code
