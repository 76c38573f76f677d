"""Who calls is known from the kernel: the host's users, and processes of containers, each through its own socket."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sysproc_client import Client, Container
from tests.e2e.daemon import RunningDaemon

pytestmark = pytest.mark.vm

ROOT = Path(__file__).parents[2]
SERVICES = "/nightos.sysproc.v1."
WHOAMI, HEALTH = f"{SERVICES}SystemService/WhoAmI", "/grpc.health.v1.Health/Check"
REFUSED = (
    f"{SERVICES}ContainerService/ListContainers",
    f"{SERVICES}ContainerService/CreateContainer",
    f"{SERVICES}ContainerService/GetContainer",
    f"{SERVICES}ContainerService/DestroyContainer",
    f"{SERVICES}ProcessService/ListProcesses",
    f"{SERVICES}ImageService/ListImages",
)


def init_of(box: Container) -> int:
    """Its pid on the host."""
    return int(next(one.host_pid for one in box.ps() if one.pid == 1))


def calls_inside(box: Container, uid: int, *methods: str) -> dict[str, str]:
    """What a process of the container is told, by method; uid: inside."""
    init = init_of(box)
    base = int(Path(f"/proc/{init}/uid_map").read_text().split()[1])
    command = [sys.executable, "-m", "tests.e2e.calling_inside", str(init), str(base + uid), *methods]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    answers: dict[str, str] = json.loads(done.stdout)
    return answers


def test_the_host_is_told_that_it_is_the_host(client: Client) -> None:
    caller = client.whoami()
    assert (caller.container_id, caller.uid, caller.authority) == (0, 0, True)


def test_inside_whoami_and_health_answer_and_everything_else_is_refused(client: Client) -> None:
    box = client.create(name="inner")
    answers = calls_inside(box, 0, WHOAMI, HEALTH, *REFUSED)
    assert answers[WHOAMI] == f"OK {box.id} 0 inner"
    assert answers[HEALTH] == "OK"
    assert {answers[method] for method in REFUSED} == {"PERMISSION_DENIED"}


def test_each_container_has_a_socket_and_a_name_of_its_own(client: Client, daemon: RunningDaemon) -> None:
    parent = client.create(name="parent")
    child = client.create(name="child", parent=parent)
    for box in (parent, child):
        assert calls_inside(box, 0, WHOAMI) == {WHOAMI: f"OK {box.id} 0 {box.name}"}
    daemon.restart()
    for box in (parent, child):
        assert calls_inside(box, 0, WHOAMI) == {WHOAMI: f"OK {box.id} 0 {box.name}"}


def test_only_root_inside_may_open_the_socket(client: Client) -> None:
    box = client.create()
    assert calls_inside(box, 1000, WHOAMI) == {WHOAMI: "UNAVAILABLE"}


AS_NOBODY = """
import os, socket, sys
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
socket.socket(socket.AF_UNIX).connect(sys.argv[1])
"""


def test_others_on_the_host_are_refused(daemon: RunningDaemon) -> None:
    command = [sys.executable, "-c", AS_NOBODY, daemon.endpoint.removeprefix("unix://")]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert b"PermissionError" in done.stderr
