"""Jobs: what the launcher runs in a forked child because it waits for disks, or because its input is hostile.

    name         fds                    does                                                     result
    format_ext4  image file             mke2fs on the partition at this place                    {}
    format_whole file                   the mkfs of a type over the whole file                   {}
    format_device  decrypted file     the same on a loop device over a part of it                {}
    grow         image file             grows the filesystem of the partition to its whole size  {}
    unpack       image file, archive    unpacks a tar into it, in a jail (`sysproc.isolation.jail`)   counts
    unpack_filesystem   the same, of a filesystem of others in the second file                                counts
    check        file                   a fsck on a part of it, in a jail (`sysproc.isolation.tool_jail`)     its words
    grow_mounted none                   grows one that is in use (`sysproc.isolation.volumes.grow`)
    shrink       file                   shrinks it, in a copy (`sysproc.isolation.volumes.shrink`)       what it needs
    pack         file, content          mkfs.erofs or mksquashfs of it (`sysproc.isolation.packing`)             {}
    copy_volume  target file            copies a volume at one moment (`sysproc.isolation.volumes.copy`)
    replay       image file             mounts a filesystem of it once, for its log
    renew_xfs    image file             the same, and another UUID
    thaw                                thaws what a copy has left frozen (`sysproc.isolation.volumes.freeze`)
    reserve_xfs                         one that gives out no more room (`sysproc.isolation.volumes.reserve`)
    attach       init's pidfd           mounts a filesystem into a container (`sysproc.isolation.volumes.attach`)
    detach       init's pidfd           unmounts it (`sysproc.isolation.volumes.detach`)

Each is a function of (values, fds, report) and ends with its process; the launcher kills it when nobody waits any
more. The command lines are in `sysproc.isolation.mkfs`, messages are drawn in `sysproc.isolation.launcher_protocol`.
"""

import contextlib
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

from sysproc.failpoints import failpoint
from sysproc.isolation import launcher_protocol as protocol
from sysproc.isolation import mkfs
from sysproc.isolation.builder import enter_own_mount_namespace, failure_message
from sysproc.isolation.jail import unpack, unpack_filesystem
from sysproc.isolation.packing import pack
from sysproc.isolation.tool_jail import check
from sysproc.isolation.tools import run_tool
from sysproc.isolation.volumes.attach import attach
from sysproc.isolation.volumes.copy import copy_volume, renew_xfs, replay
from sysproc.isolation.volumes.detach import detach
from sysproc.isolation.volumes.freeze import thaw
from sysproc.isolation.volumes.grow import grow_mounted
from sysproc.isolation.volumes.reserve import reserve_xfs
from sysproc.isolation.volumes.shrink import shrink
from sysproc.linux.files import syncfs
from sysproc.linux.loop import LO_FLAGS_AUTOCLEAR, LO_FLAGS_DIRECT_IO, loop_configure
from sysproc.linux.mounts import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, new_mount
from sysproc.linux.resize import btrfs_resize, xfs_growfs

Values = Mapping[str, Any]
Job = Callable[[Values, Sequence[int], socket.socket], Mapping[str, Any]]


def format_ext4(values: Values, fds: Sequence[int], _: socket.socket) -> Mapping[str, Any]:
    """mke2fs in the file, at `offset`, of `size` bytes, for as many `inodes` as are wanted."""
    command = mkfs.ext4_at(path_of(fds[0]), values["offset"], values["size"], values.get("inodes"))
    run_tool(*command, pass_fds=fds)
    failpoint("jobs.format.after_mke2fs")
    return {}


def format_whole(values: Values, fds: Sequence[int], _: socket.socket) -> Mapping[str, Any]:
    """The mkfs of a `type` over the whole file, which becomes known by `label` and `uuid`."""
    identity = mkfs.Identity(values["label"], values["uuid"])
    run_tool(*mkfs.MKFS[values["type"]](path_of(fds[0]), identity), pass_fds=fds)
    failpoint("jobs.format.after_mkfs")
    return {}


def format_device(values: Values, fds: Sequence[int], _: socket.socket) -> Mapping[str, Any]:
    """The mkfs of a `type` on `size` bytes at `offset`, of a file in which what was never written is noise."""
    identity, flags = mkfs.Identity(values["label"], values["uuid"]), LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO
    where = {name: values[name] for name in ("offset", "size", "block_size")}
    device_fd, device = loop_configure(fds[0], **where, flags=flags)
    try:
        run_tool(*mkfs.MKFS[values["type"]](device, identity))
        failpoint("jobs.format.after_device")
        os.fsync(device_fd)
    finally:
        os.close(device_fd)
    return {}


def path_of(fd: int) -> str:
    """How a program that is given the fd opens the file."""
    return f"/proc/self/fd/{fd}"


def grow(values: Values, fds: Sequence[int], _: socket.socket) -> Mapping[str, Any]:
    """Grow the filesystem at `offset` to `size` bytes, by a loop device; ext4 unless a `type` is said.

    block_size: of a decrypted file.
    """
    block_size = values.get("block_size", 0)
    flags = LO_FLAGS_AUTOCLEAR | (LO_FLAGS_DIRECT_IO if block_size else 0)
    where = {"offset": values["offset"], "size": values["size"], "block_size": block_size}
    device_fd, device = loop_configure(fds[0], **where, flags=flags)
    try:
        failpoint("jobs.grow.after_loop")
        GROW[values.get("type", "ext4")](device, values["size"])
        os.fsync(device_fd)
    finally:
        os.close(device_fd)
    return {}


def grow_ext4(device: str, _: int) -> None:
    """resize2fs (e2fsprogs), to the device's size.

    EXT4_IOC_RESIZE_FS on the mounted filesystem would need CAP_SYS_RESOURCE, which not every host's root has.
    """
    run_tool("resize2fs", "-f", device)


def grow_unseen(fstype: str, resize: Callable[[int, int], None], device: str, size: int) -> None:
    """Mount it where nobody sees it, and have the kernel grow it, which is all that these two know."""
    enter_own_mount_namespace()
    mounted = new_mount(fstype, {"source": device}, MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)
    try:
        top = os.open(path_of(mounted), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            resize(top, size)
            syncfs(top)
        finally:
            os.close(top)
    finally:
        os.close(mounted)


GROW: dict[str, Callable[[str, int], None]] = {
    "ext4": grow_ext4,
    "btrfs": partial(grow_unseen, "btrfs", lambda top, _: btrfs_resize(top)),
    "xfs": partial(grow_unseen, "xfs", xfs_growfs),
}


JOBS: dict[str, Job] = {
    "format_ext4": format_ext4,
    "format_whole": format_whole,
    "format_device": format_device,
    "grow": grow,
    "grow_mounted": grow_mounted,
    "shrink": shrink,
    "unpack": unpack,
    "unpack_filesystem": unpack_filesystem,
    "check": check,
    "pack": pack,
    "copy_volume": copy_volume,
    "replay": replay,
    "renew_xfs": renew_xfs,
    "thaw": thaw,
    "reserve_xfs": reserve_xfs,
    "attach": attach,
    "detach": detach,
}


def run_job(name: str, values: Values, fds: Sequence[int], report: socket.socket) -> NoReturn:
    """Run one job in this process, report its result or failure, and exit."""
    try:
        try:
            result = JOBS[name](values, fds, report)
        finally:
            let_go_of_all_but(report)
        protocol.send(report, {"result": result})
        failpoint("jobs.after_answer")
    except OSError as failure:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            report.send(failure_message(failure))
    finally:
        os._exit(0)


def let_go_of_all_but(report: socket.socket) -> None:
    """Close files, devices and mounts before anybody is told: until then they are in use."""
    os.closerange(3, report.fileno())
    os.closerange(report.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
