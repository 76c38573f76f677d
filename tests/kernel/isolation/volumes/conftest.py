"""Small containers, a volume's file, and the jobs that bring the two together."""

import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from sysproc.isolation.launcher_client import Launcher
from tests.compiled import compiled

BASE = 0x70000000 + 4100 * 65536
ROOT = Path(__file__).parents[4]
OFFSET, SIZE = 1 << 20, 32 << 20


@dataclass(frozen=True)
class Box:
    """A container as far as mounts are concerned. process: its parent; kill it and the box is gone."""

    pid: int
    pidfd: int
    process: "subprocess.Popen[bytes]"

    def command(self, script: str, uid: int = 0) -> list[str]:
        """A shell script inside, with the namespaces of init."""
        enter = ["nsenter", "--target", str(self.pid), "--all", "--setuid", str(uid), "--setgid", str(uid)]
        return [*enter, "/bin/sh", "-c", script]

    def run(self, script: str, uid: int = 0) -> "subprocess.CompletedProcess[str]":
        """Run it to its end."""
        return subprocess.run(self.command(script, uid), capture_output=True, text=True, timeout=20, check=False)

    def says(self, script: str, uid: int = 0) -> str:
        """What it prints; it has to succeed."""
        done = self.run(script, uid)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def put(self, source: Path, path: str) -> None:
        """Compile a program of a test into the container; its root owns it."""
        program = compiled(source)
        if program is None:
            pytest.skip("no C compiler here")
        self.says(f"touch {path}")
        Path(f"/proc/{self.pid}/root{path}").write_bytes(program.read_bytes())


@pytest.fixture
def make_box() -> Iterator[Callable[[], Box]]:
    numbers = count()
    with ExitStack() as stack:

        def make() -> Box:
            command = [sys.executable, "-m", "tests.kernel.exec.box", str(BASE + next(numbers) * 65536)]
            parent = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            stack.enter_context(parent)
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            pidfd = os.pidfd_open(pid)
            stack.callback(os.close, pidfd)
            return Box(pid, pidfd, parent)

        yield make


@pytest.fixture
def box(make_box: Callable[[], Box]) -> Box:
    return make_box()


@pytest.fixture
def runtime_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sysproc-test-") as name:
        yield Path(name)


@pytest.fixture
async def launcher(runtime_dir: Path) -> AsyncIterator[Launcher]:
    connected = Launcher(runtime_dir, ())
    await connected.connect()
    yield connected
    await connected.quit()
    await connected.close()


@pytest.fixture
async def volume(launcher: Launcher, runtime_dir: Path) -> Path:
    """A file with an ext4 in one part of it."""
    path = runtime_dir / "volume.vsf"
    with path.open("w+b") as file:
        file.truncate(OFFSET + SIZE)
        await launcher.run_job("format_ext4", {"offset": OFFSET, "size": SIZE}, [file.fileno()], timeout_s=60)
    return path


@dataclass
class Mounting:
    """attach and detach as the daemon asks for them."""

    launcher: Launcher
    volume: Path
    frame: Path

    async def attach(self, box: Box, path: str = "/data", **wish: Any) -> dict[str, Any]:
        """Mount the volume; returns what the job says."""
        defaults = {"options": {}, "read_only": False, "suid": False, "noexec": False, "own_ids": True}
        place = {"file": str(self.volume), "fstype": "ext4", "offset": OFFSET, "size": SIZE, "frame": str(self.frame)}
        values = {**place, "path": os.fsencode(path).hex(), **defaults, **wish}
        return dict(await self.launcher.run_job("attach", values, [box.pidfd], timeout_s=60))

    async def detach(self, box: Box, mounted: dict[str, Any], *pids: int, force: bool = False) -> int:
        """Unmount it, by force also where these processes are; how many mounts went."""
        values = {"pids": pids, "device": mounted["device"], "mount": mounted["mount"], "force": force}
        return int((await self.launcher.run_job("detach", values, [box.pidfd], timeout_s=60))["gone"])


@pytest.fixture
def mounting(launcher: Launcher, volume: Path, runtime_dir: Path) -> Mounting:
    return Mounting(launcher, volume, runtime_dir / "frame")
