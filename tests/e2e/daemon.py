"""A real sysprocd for tests and benchmarks: directories and cgroups of its own, started, killed, restarted.

What a test expects of it is in the tests; that nothing of it is left is checked by `tests.leaks`.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from sysproc.isolation import launcher_protocol
from sysproc_client import Client, SysprocError, Volume
from tests.leaks import Scope
from tests.waiting import PATIENCE_S, is_zombie, wait_until


class DaemonFailed(AssertionError):
    """sysprocd did not do what it was started for; the text has its log."""


class RunningDaemon:
    """sysprocd in temporary directories; a context manager that ends it, its containers and its launcher."""

    def __init__(self, *, environment: Mapping[str, str] | None = None, options: tuple[str, ...] = ()) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="sysproc-test-"))
        self.state_dir, self.runtime_dir = self.directory / "state", self.directory / "run"
        self.cgroup_root = f"sysproc-test-{os.getpid()}-{self.directory.name.removeprefix('sysproc-test-')}"
        self.uid_claims = self.directory / "uids"
        self.endpoint = f"unix://{self.runtime_dir}/sysproc.sock"
        self.log = self.directory / "sysprocd.log"
        self.environment, self.options = dict(environment or {}), options
        self._process: subprocess.Popen[bytes] | None = None
        self._is_odd = False

    # -- life

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def command(self) -> list[str]:
        """The command line, with everything that is this daemon's own."""
        return [
            str(Path(sys.executable).with_name("sysprocd")),
            f"--state-dir={self.state_dir}",
            f"--runtime-dir={self.runtime_dir}",
            f"--cgroup-root=/{self.cgroup_root}",
            f"--uid-claims={self.uid_claims}",
            "--log-format=console",
            # The tests' passphrases are worth nothing.
            "--luks-iter-time-s=0.02",
            *self.options,
        ]

    def start(self, *, environment: Mapping[str, str] | None = None, wait: bool = True) -> None:
        """Start it; with `wait`, until it says READY (sd_notify)."""
        with self.log.open("ab") as log, NotifySocket(self.directory) as notify:
            extra = {"NOTIFY_SOCKET": str(notify.path), **self.environment, **(environment or {})}
            self._is_odd = self._is_odd or bool(environment)
            self._process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **extra}
            )
            if wait:
                self._wait_ready(notify)

    def _wait_ready(self, notify: "NotifySocket") -> None:
        def ready_or_dead() -> bool:
            return notify.ready() or self.process.poll() is not None

        wait_until(ready_or_dead, "sysprocd is ready", PATIENCE_S)
        if self.process.poll() is not None:
            raise DaemonFailed(f"sysprocd ended with {self.process.returncode}:\n{self.log_text()}")

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The process, which may have ended."""
        if self._process is None:
            raise DaemonFailed("sysprocd was not started")
        return self._process

    @property
    def pid(self) -> int:
        """Of sysprocd."""
        return self.process.pid

    @property
    def launcher_pid(self) -> int:
        """Of the launcher, by who holds its socket; 0 if there is none."""
        return peer_pid(self.runtime_dir / launcher_protocol.SOCKET_NAME)

    def alive(self) -> bool:
        """Whether sysprocd runs."""
        return self._process is not None and self._process.poll() is None

    def endpoint_answers(self) -> bool:
        """Whether the service can be called, whoever has started it."""
        try:
            with Client(self.endpoint, patience=0) as client:
                client.whoami()
        except SysprocError:
            return False
        return True

    def kill9(self) -> None:
        """SIGKILL to sysprocd, and only to it."""
        self.process.kill()
        self.process.wait()

    def kill_launcher(self) -> None:
        """SIGKILL to the launcher."""
        if pid := self.launcher_pid:
            pidfd = os.pidfd_open(pid)
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
            wait_until(lambda: not Path(f"/proc/{pid}").exists() or is_zombie(pid), "the launcher is gone")

    def terminate(self) -> int:
        """SIGTERM; its exit code."""
        self.process.terminate()
        return self.process.wait(PATIENCE_S)

    def restart(self, *, environment: Mapping[str, str] | None = None) -> None:
        """kill -9, if it runs, and start again."""
        if self.alive():
            self.kill9()
        self.start(environment=environment)

    def log_text(self) -> str:
        """What it has said, and its launcher; empty once it is closed."""
        launcher_log = self.runtime_dir / launcher_protocol.LOG_NAME
        said = self.log.read_text(errors="replace")[-20_000:] if self.log.exists() else ""
        return said + (f"\nlauncher:\n{launcher_log.read_text(errors='replace')}" if launcher_log.exists() else "")

    def scope(self) -> Scope:
        """What is this daemon's, for a leak check."""
        return Scope(
            directories=(self.directory,),
            cgroup_roots=(self.cgroup_root,),
            uid_claims=self.uid_claims,
            watched=lambda: {"sysprocd": self.pid, "launcher": self.launcher_pid},
            ignored=("*/__pycache__*", "*.log", "*-wal", "*-shm", "*/templates/*"),
        )

    def destroy_all(self) -> None:
        """What a test has left in the tree is destroyed through the API."""
        if not self.alive():
            self.start()
        with Client(self.endpoint) as client:
            for box in client.list():
                if not box.parent_id:
                    box.destroy()

    def delete_volumes(self) -> None:
        """The host's own, once nothing has them any more; those of containers go with these."""
        with Client(self.endpoint) as client:
            for volume in client.volumes.list():
                wait_until(partial(is_unused, volume), "nothing holds it")
                volume.delete()

    def make_template(self) -> None:
        """What the first container makes for all stays: the template of the default root."""
        with Client(self.endpoint) as client:
            client.create(image="busybox").destroy()

    def as_new(self) -> None:
        """For the next module: it runs, without failpoints, and has no image but the default one."""
        if self._is_odd or not self.alive():
            self.kill_launcher()  # it may have been started with them
            self.restart()
            self._is_odd = False
        with Client(self.endpoint) as client:
            for image in client.images.list():
                if image.name != "busybox":
                    client.images.delete(image.name)

    def close(self) -> None:
        """End everything and remove the directories; containers are ended by their cgroups. Idempotent."""
        if self.alive():
            self.terminate()
        self.kill_launcher()
        self._end_containers()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _end_containers(self) -> None:
        """What a test has left is ended, so that the next one meets nothing; the leak check has reported it."""
        for top in cgroup_tops(self.cgroup_root):
            wait_until(lambda top=top: end_all_in(top), f"{top} is empty")  # type: ignore[misc]
            for directory, _, _ in os.walk(top, topdown=False):
                os.rmdir(directory)


def is_unused(volume: Volume) -> bool:
    """Mounted nowhere, and locked if it can be."""
    return not volume.refresh().attached_to and not volume.unlocked


class NotifySocket:
    """The other end of sd_notify(3)."""

    def __init__(self, directory: Path) -> None:

        self.path = directory / "notify.sock"
        self.path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._socket.setblocking(False)
        self._said = b""

    def ready(self) -> bool:
        """Whether READY=1 was said."""
        with suppress(BlockingIOError):
            self._said += self._socket.recv(4096) + b"\n"
        return b"READY=1" in self._said

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self.path.unlink(missing_ok=True)


def peer_pid(path: Path) -> int:
    """The process that listens on a unix socket; 0 if nobody does."""

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        try:
            sock.connect(str(path))
        except OSError:
            return 0
        return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)


def cgroup_tops(root: str) -> list[Path]:
    """The directory of this root in every hierarchy that has it."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    mounts = [Path(line.split()[4]) for line in lines if line.partition(" - ")[2].startswith("cgroup")]
    return [mount / root for mount in mounts if (mount / root).is_dir()]


def end_all_in(top: Path) -> bool:
    """SIGKILL to all in a subtree; whether it is empty."""
    pids = [int(pid) for file in top.glob("**/cgroup.procs") for pid in file.read_text().split()]
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return not pids
