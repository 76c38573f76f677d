"""The peers that are installed: bwrap, nsenter, crun and runc, each doing the same work on the same busybox root.

A peer that is not installed, or does not run here, is left out and named (`benchmarks.left_out`). Our own side is in
`benchmarks.lifecycle`.
"""

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from benchmarks.left_out import LeftOut, Work, leave_out, usable
from sysproc.busybox_image import busybox_tar

RUNTIMES = ("crun", "runc")


def unpack_busybox(directory: Path) -> Path:
    """A busybox root as a plain directory, for peers that take one."""
    root = directory / "rootfs"
    root.mkdir()
    with tarfile.open(fileobj=BytesIO(busybox_tar(Path("/bin/busybox")))) as archive:
        archive.extractall(root, filter="fully_trusted")
    return root


def _run(*command: str) -> None:
    """A command to its end. Its errors go to a file: what it leaves running may hold a pipe open for ever."""
    with tempfile.TemporaryFile() as errors:
        done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors)
        if done.returncode:
            errors.seek(0)
            raise subprocess.CalledProcessError(done.returncode, command, stderr=errors.read())


def _bundle(runtime: str, directory: Path, root: Path, args: list[str]) -> Path:
    """An OCI bundle as the runtime's own `spec` writes it, without a terminal."""
    bundle = directory / f"{runtime}-{args[0].rsplit('/', 1)[-1]}"
    bundle.mkdir()
    subprocess.run([runtime, "spec"], cwd=bundle, check=True)
    config = json.loads((bundle / "config.json").read_text())
    config["process"] |= {"terminal": False, "args": args}
    config["root"] = {"path": str(root), "readonly": False}
    (bundle / "config.json").write_text(json.dumps(config))
    return bundle


def _prefix(runtime: str) -> list[str]:
    """crun refuses hybrid cgroups: it runs where, in a mount namespace of its own, the version 2 mount is gone."""
    hybrid = Path("/sys/fs/cgroup/unified")
    if runtime != "crun" or not hybrid.is_dir():
        return []
    return ["unshare", "-m", "sh", "-c", f'umount {hybrid} && exec "$@"', "sh"]


def one_shots(directory: Path, root: Path, left_out: LeftOut) -> dict[str, Work]:
    """Per peer: make a container, run /bin/true in it, remove it."""
    command = ["bwrap", "--unshare-all", "--bind", str(root), "/", "--proc", "/proc", "--dev", "/dev", "/bin/true"]
    works: dict[str, Work] = {"bwrap": lambda: _run(*command)}
    for runtime in RUNTIMES:
        if shutil.which(runtime) is None:
            leave_out(left_out, f"{runtime} run", f"{runtime} is not installed")
            continue
        bundle = _bundle(runtime, directory, root, ["/bin/true"])
        call = [*_prefix(runtime), runtime, "run", "--bundle", str(bundle), f"bench-{runtime}-{os.getpid()}"]
        works[f"{runtime} run"] = lambda call=call: _run(*call)  # type: ignore[misc]  # bound per runtime
    return usable(works, left_out)


@contextmanager
def running(runtime: str, directory: Path, root: Path) -> Iterator[tuple[Work, int]]:
    """A container of a peer that sleeps: the work is to exec /bin/true in it; and the pid of its init."""
    bundle = _bundle(runtime, directory, root, ["/bin/sleep", "1000000"])
    name, prefix = f"bench-{runtime}-{os.getpid()}-sleeps", _prefix(runtime)
    pid_file = bundle / "pid"
    _run(*prefix, runtime, "create", "--bundle", str(bundle), "--pid-file", str(pid_file), name)
    try:
        _run(*prefix, runtime, "start", name)
        yield lambda: _run(*prefix, runtime, "exec", name, "/bin/true"), int(pid_file.read_text())
    finally:
        _run(*prefix, runtime, "delete", "--force", name)


def nsenter(pid: int) -> Work:
    """Enter all namespaces of a process and run /bin/true there."""
    return lambda: _run("nsenter", "--all", "--target", str(pid), "/bin/true")
