"""Runs things in containers: a script, or callers of the API, which are `tests.e2e.calling_inside`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from sysproc_client import Container

ROOT = Path(__file__).parents[2]


def says(box: Container, script: str) -> bytes:
    """What a shell inside answers; it has to end well."""
    done = box.run(["sh", "-c", script])
    assert done.exit_code == 0, done.stderr
    return done.stdout


def init_of(box: Container) -> int:
    """Its pid on the host; only for the host's clients."""
    return int(next(one.host_pid for one in box.ps() if one.pid == 1))


def caller_inside(init: int, uid: int, script: str, *methods: str) -> Any:
    """What a process of the container with this init is told; uid: inside."""
    base = int(Path(f"/proc/{init}/uid_map").read_text().split()[1])
    command = [sys.executable, "-m", "tests.e2e.calling_inside", str(init), str(base + uid), *methods]
    done = subprocess.run(command, cwd=ROOT, input=script.encode(), capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def script_inside(box: Container, script: str, uid: int = 0) -> Any:
    """What a script of a process of the container has left as `answer`."""
    return caller_inside(init_of(box), uid, script)
