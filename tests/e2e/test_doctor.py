"""`sysproc doctor` and `sysproc version` beside a service that runs, one that is down, one of another version.

What is seen of a host's files is in `tests.unit.client.test_host_checks`.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sysproc_client import Client
from tests.e2e.conftest import Sysproc
from tests.e2e.daemon import RunningDaemon

COMMAND = str(Path(sys.executable).with_name("sysproc"))
CODES = {"fine": 0, "note": 0, "warning": 1, "error": 2}


def found_by(*arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    done = subprocess.run([COMMAND, *arguments, "doctor", "-o", "json"], capture_output=True, timeout=60, check=False)
    return done.returncode, {one["name"]: one for one in json.loads(done.stdout)}


def test_a_service_that_runs_is_examined_with_its_kernel(
    sysproc: Sysproc, client: Client, daemon: RunningDaemon
) -> None:
    code, found = found_by("--endpoint", daemon.endpoint)
    assert found["service"]["severity"] == found["authority"]["severity"] == found["version"]["severity"] == "fine"
    for feature in client.system_info().features:
        assert (found[feature.name]["severity"] == "fine") is feature.usable
        assert feature.usable or feature.fallback in found[feature.name]["what"]
    assert code == max(CODES[one["severity"]] for one in found.values())
    assert all(one["to_do"] for one in found.values() if one["severity"] != "fine")
    shown = sysproc("doctor").stdout.decode()
    assert all(f"{name}: " in shown for name in found)


@pytest.mark.usefixtures("daemon")
def test_without_a_service_the_host_is_looked_at(tmp_path: Path) -> None:
    code, found = found_by("--endpoint", f"unix://{tmp_path}/none.sock")
    assert code == 2
    assert found["service"]["severity"] == found["socket"]["severity"] == "error"
    assert "sysprocd" in found["socket"]["to_do"]
    assert {"kernel", "cgroups", "user namespaces", "loop devices", "mke2fs"} <= found.keys()


@pytest.mark.usefixtures("daemon")
def test_of_a_socket_that_was_left_it_is_said_that_nobody_listens(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left.sock"))
    code, found = found_by("--endpoint", f"unix://{tmp_path}/left.sock")
    assert code == 2 and "Nobody listens" in found["listener"]["what"]


@pytest.mark.parametrize(("ours", "words"), [("0.0.9", "command is older"), ("9.0.0", "service is older")])
def test_versions_that_do_not_fit_are_said_with_what_to_do(daemon: RunningDaemon, ours: str, words: str) -> None:
    script = (
        f"import sysproc_client.version; sysproc_client.version.VERSION = {ours!r}\n"
        "from sysproc_client.cli.main import main; main(['version'])"
    )
    environment = {**os.environ, "SYSPROC_ENDPOINT": daemon.endpoint}
    call = [sys.executable, "-c", script]
    done = subprocess.run(call, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.returncode == 0 and ours in done.stdout and "sysprocd" in done.stdout
    assert words in done.stderr and "pgrade" in done.stderr
