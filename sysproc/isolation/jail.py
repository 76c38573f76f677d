"""The jail for what comes from outside: bytes are read by a process that has nothing but them and one filesystem.

    job (forked by the launcher; own mount namespace)                  J (its child)
      image file -> loop -> detached mount
      as the jail's base uid: clone3 user, pid, net, ipc, uts ───────▶ waits
      id maps; idmap; attach the filesystem
      GO ────────────────────────────────────────────────────────────▶ uid 0 of its namespace; own mount namespace
      back into the host's mount namespace                             pivot_root: the filesystem is all there is
                                                                       rlimits; seccomp `strict`
                                                                       unpacks (`sysproc.isolation.unpack`) the archive,
                                                                       or a filesystem (`sysproc.isolation.readers`)
      {"progress"}* and {"result"} or {"failed"} ◀───────────────────  on the daemon's report socket, by the job
      J ended; fsync of the filesystem; read-only from now on          exit

What a container's root cannot do, the unpacker cannot either; it cannot even execute anything.
"""

import contextlib
import errno
import json
import os
import resource
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from sysproc.failpoints import failpoint
from sysproc.isolation.attributes import MOST_NAME, MOST_NAMES
from sysproc.isolation.builder import Born, bear_as, enter_own_mount_namespace, error_of
from sysproc.isolation.inside import become_root, enter_attached_root, make_it_the_root
from sysproc.isolation.root_mount import idmap, mount_detached
from sysproc.isolation.tar_headers import MAX_NUMBER
from sysproc.linux.files import syncfs
from sysproc.linux.mounts import AT_FDCWD, move_mount, reconfigure
from sysproc.linux.namespaces import CLONE_NEWNS, setns, write_id_maps
from sysproc.linux.seccomp import load_filter
from sysproc.linux.unix_sockets import send_with_fds

Values = Mapping[str, Any]
# It tells its progress by what it is given, and returns its counts.
Work = Callable[[Callable[[dict[str, int]], object]], Mapping[str, Any]]

# Enough for any archive, little enough for a hostile one.
MEMORY_BYTES = 1 << 30
CPU_S = 3000
# J is init of its PID namespace: of SIGXCPU it notices only what it has a handler for, SIGKILL comes at the hard limit.
RLIMITS = {
    resource.RLIMIT_AS: (MEMORY_BYTES, MEMORY_BYTES),
    resource.RLIMIT_CPU: (CPU_S, CPU_S + 10),
    resource.RLIMIT_NOFILE: (256, 256),
    resource.RLIMIT_CORE: (0, 0),
}
# A result has 16 names of 100 characters, of which JSON makes 12 bytes each.
_MOST_SAID = 1 << 16
_LIMITS = {
    errno.ENOMEM: f"The unpacker may have {MEMORY_BYTES >> 20} MiB of memory",
    errno.ETIME: f"The unpacker may have {CPU_S} s of processor time",
}


def unpack(values: Values, fds: Sequence[int], report: socket.socket) -> Mapping[str, Any]:
    """The job; fds: the image file and the archive. values say where the filesystem is, and the uid range."""
    from sysproc.isolation.unpack import unpack_archive  # noqa: PLC0415 - zlib only where it is used

    return fill(values, fds, report, partial(unpack_archive, fds[1]))


def unpack_filesystem(values: Values, fds: Sequence[int], report: socket.socket) -> Mapping[str, Any]:
    """The same with a filesystem of others, of which the values say the kind and where in the second file it is."""
    from sysproc.isolation.readers.reading import unpack_part  # noqa: PLC0415 - only where it is used

    part = values["source"]
    return fill(values, fds, report, partial(unpack_part, part["kind"], fds[1], part["offset"], part["size"]))


def fill(values: Values, fds: Sequence[int], report: socket.socket, work: Work) -> Mapping[str, Any]:
    """Let the work, done in the jail, write into the filesystem; it is told where to tell its progress."""
    from sysproc.isolation.unpack import out_of_time  # noqa: PLC0415 - see above

    image, source = fds
    frame = Path(values["frame"])
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    enter_own_mount_namespace()
    root = mount_detached(image, fstype="ext4", offset=values["offset"], size=values["size"])
    failpoint("jobs.unpack.after_mount")
    signal.signal(signal.SIGXCPU, out_of_time)
    born = bear_as(values["uid_base"], lambda go: _inside(go, values, lambda: work(partial(tell, go))))
    map_ids(born, values)
    userns = os.open(f"/proc/{born.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    idmap(root, userns)
    os.close(userns)
    move_mount(root, AT_FDCWD, frame)
    send_with_fds(born.go, b"GO", [root])
    setns(home, CLONE_NEWNS)  # a long import keeps no mount of the host
    os.close(source)  # so that the sender notices when J has ended
    failpoint("jobs.unpack.after_go")
    result = relay(born, report)
    os.waitpid(born.pid, 0)
    sync(root)
    make_clean(root)
    failpoint("jobs.unpack.after_sync")
    return result


def map_ids(born: Born, values: Values) -> None:
    """Give J its ids; it becomes root of its user namespace."""
    write_id_maps(born.pid, values["uid_base"], values["uid_count"])
    born.go.send(b"MAPPED")


def relay(born: Born, report: socket.socket) -> Mapping[str, Any]:
    """Pass J's progress on; its result, or its failure as OSError. J is not trusted: its words are data only."""
    while True:
        message = born.go.recv(_MOST_SAID)
        if not message:
            raise OSError(errno.ECHILD, "ended without a result", how_it_ended(*os.wait4(born.pid, 0)[1:]))
        said = json.loads(message)
        if "failed" in said:
            raise with_its_limit(error_of(message))
        if "result" in said:
            return counts_of(said["result"])
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            report.send(json.dumps({"progress": {k: bounded(v) for k, v in said["progress"].items()}}).encode())


def counts_of(said: Mapping[str, Any]) -> Mapping[str, Any]:
    """What J says at the end: numbers, and some names that the archive has given; no more than a record takes."""
    numbers = {name: bounded(said[name]) for name in ("entries", "bytes", "skipped_devices", "skipped_attributes")}
    names = [*said["attribute_names"].items()][:MOST_NAMES]
    return {**numbers, "attribute_names": {in_utf8(name)[:MOST_NAME]: bounded(count) for name, count in names}}


def bounded(said: Any) -> int:
    """A count of J's as databases and messages have them."""
    return min(max(int(said), 0), MAX_NUMBER)


def in_utf8(said: str) -> str:
    """JSON may have halves of characters, messages may not."""
    return said.encode("utf-8", "backslashreplace").decode()


def with_its_limit(failure: OSError) -> OSError:
    """A failure of J; if it has met a limit, then with the figure."""
    if failure.errno not in _LIMITS:
        return failure
    text = f"{_LIMITS[failure.errno]}, and the archive takes more: {failure.filename}"
    return OSError(failure.errno, failure.strerror, text)


def how_it_ended(status: int, usage: resource.struct_rusage) -> str:
    """For a J that could say nothing any more: what ended it, and what it had used until then."""
    code = os.waitstatus_to_exitcode(status)
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
    spent, most = usage.ru_utime + usage.ru_stime, usage.ru_maxrss >> 10
    return f"the unpacker {how}, after {spent:.0f} of {CPU_S} s of processor time and with {most} MiB of memory"


def sync(root: int) -> None:
    """syncfs by way of its root directory: what was unpacked is in the image file when this returns."""
    top = os.open(f"/proc/self/fd/{root}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syncfs(top)
    finally:
        os.close(top)


def make_clean(root: int) -> None:
    """The whole filesystem becomes read-only, so that its journal is empty and nothing is written any more.

    Unmounted it is only some time after this process has ended, when others copy the image already: a copy with a
    journal that is still to be replayed is destroyed by resize2fs, or by the replay after it.
    """
    reconfigure(root, "ro")


def tell(go: socket.socket, counts: Mapping[str, int]) -> None:
    """Progress, to the job outside."""
    go.send(json.dumps({"progress": counts}).encode())


def _inside(go: socket.socket, values: Values, work: Callable[[], Mapping[str, Any]]) -> NoReturn:
    """J's life. Everything it needs was imported before: its base uid may not be able to read our modules."""
    become_root(go)
    make_it_the_root(enter_attached_root(go))
    for limit, values_of_it in RLIMITS.items():
        resource.setrlimit(limit, values_of_it)
    os.umask(0)
    load_filter(bytes.fromhex(values["seccomp_filter"]))
    go.send(json.dumps({"result": work()}).encode())
    os._exit(0)
