"""Jobs: what the launcher runs in a forked child because it waits for disks, or because its input is hostile.

    name         fds                    does                                                     result
    format_ext4  image file             mke2fs on the partition at this place                    {}
    grow         image file             grows the ext4 of the partition to its whole size        {}
    unpack       image file, archive    unpacks a tar into it, in a jail (`sysproc.isolation.jail`)   counts
    attach       init's pidfd           mounts a filesystem into a container (`sysproc.isolation.volumes.attach`)
    detach                              unmounts it (`sysproc.isolation.volumes.detach`)

Each is a function of (values, fds, report) and ends with its process; the launcher kills it when nobody waits any
more. Messages are drawn in `sysproc.isolation.launcher_protocol`.
"""

import contextlib
import errno
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

from sysproc.failpoints import failpoint
from sysproc.isolation import launcher_protocol as protocol
from sysproc.isolation.builder import failure_message
from sysproc.isolation.jail import unpack
from sysproc.isolation.volumes.attach import attach
from sysproc.isolation.volumes.detach import detach
from sysproc.linux.loop import LO_FLAGS_AUTOCLEAR, loop_configure
from sysproc.linux.prctl import set_pdeathsig

Values = Mapping[str, Any]
Job = Callable[[Values, Sequence[int], socket.socket], Mapping[str, Any]]

EXT4_BLOCK = 4096
# metadata_csum_seed: a clone gets another UUID without rewriting every checksum; no lost+found, no reserved blocks.
MKE2FS = (
    "mke2fs",
    "-q",
    "-F",
    "-t",
    "ext4",
    "-b",
    str(EXT4_BLOCK),
    "-m",
    "0",
    "-O",
    "metadata_csum,metadata_csum_seed",
)
MKE2FS_EXTENDED = "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0"


def format_ext4(values: Values, fds: Sequence[int], _: socket.socket) -> Mapping[str, Any]:
    """mke2fs (e2fsprogs) in the file, at `offset`, of `size` bytes, for as many `inodes` as are wanted."""
    options = ["-E", f"{MKE2FS_EXTENDED},offset={values['offset']}"]
    if values.get("inodes") is not None:
        options += ["-N", str(values["inodes"])]
    run_tool(*MKE2FS, *options, f"/proc/self/fd/{fds[0]}", str(values["size"] // EXT4_BLOCK), pass_fds=fds)
    failpoint("jobs.format.after_mke2fs")
    return {}


def grow(values: Values, fds: Sequence[int], _: socket.socket) -> Mapping[str, Any]:
    """resize2fs (e2fsprogs) on a loop device, to the partition's `size`.

    EXT4_IOC_RESIZE_FS on the mounted filesystem would need CAP_SYS_RESOURCE, which not every host's root has.
    """
    flags = LO_FLAGS_AUTOCLEAR
    device_fd, device = loop_configure(fds[0], offset=values["offset"], size=values["size"], flags=flags)
    try:
        failpoint("jobs.grow.after_loop")
        run_tool("resize2fs", "-f", device)
        os.fsync(device_fd)
    finally:
        os.close(device_fd)
    return {}


def run_tool(*command: str, pass_fds: Sequence[int] = ()) -> None:
    """Run a program of the host; OSError with its own words if it fails, ENOENT if it is not installed.

    It dies with the job: the signal that the job dies by is none that the kernel would pass on.
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
        raise OSError(errno.ENOENT, "not installed", f"{command[0]} (install e2fsprogs)") from None
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip()[:500]
        raise OSError(errno.EIO, "failed", f"{command[0]}: {words}")


def die_with(parent: int) -> None:
    """In the tool, before it is executed: SIGKILL when the parent ends, also if it has ended just now."""
    set_pdeathsig(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


JOBS: dict[str, Job] = {
    "format_ext4": format_ext4,
    "grow": grow,
    "unpack": unpack,
    "attach": attach,
    "detach": detach,
}


def run_job(name: str, values: Values, fds: Sequence[int], report: socket.socket) -> NoReturn:
    """Run one job in this process, report its result or failure, and exit."""
    try:
        result = JOBS[name](values, fds, report)
        protocol.send(report, {"result": result})
    except OSError as failure:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            report.send(failure_message(failure))
    finally:
        os._exit(0)
