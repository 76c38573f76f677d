"""Who calls is known from the kernel: the host's users, and processes of containers, each through its own socket."""

import subprocess
import sys

import pytest

from sysproc_client import Client, Container
from tests.e2e.daemon import RunningDaemon
from tests.e2e.inside import caller_inside, init_of, script_inside

pytestmark = pytest.mark.vm

SERVICES = "/nightos.sysproc.v1."
WHOAMI, HEALTH = f"{SERVICES}SystemService/WhoAmI", "/grpc.health.v1.Health/Check"
LIST, CREATE, GET = (
    f"{SERVICES}ContainerService/{name}" for name in ("ListContainers", "CreateContainer", "GetContainer")
)
FOR_ROOT = (LIST, CREATE, GET, f"{SERVICES}ProcessService/ListProcesses", f"{SERVICES}ImageService/ListImages")
FOR_THE_HOST = (f"{SERVICES}ImageService/DeleteImage",)


def calls_inside(box: Container, uid: int, *methods: str) -> dict[str, str]:
    """What a process of the container is told, by method; uid: inside."""
    answers: dict[str, str] = caller_inside(init_of(box), uid, "", *methods)
    return answers


def test_the_host_is_told_that_it_is_the_host(client: Client) -> None:
    caller = client.whoami()
    assert (caller.container_id, caller.uid, caller.authority) == (0, 0, True)


def test_inside_root_may_do_what_reaches_downward_and_others_get_whoami_and_health(client: Client) -> None:
    box = client.create(name="inner")
    for uid, then in ((0, "OK"), (1000, "PERMISSION_DENIED")):
        answers = calls_inside(box, uid, WHOAMI, HEALTH, *FOR_ROOT, *FOR_THE_HOST)
        assert answers[WHOAMI] == f"OK {box.id} {uid} inner"
        assert answers[HEALTH] == "OK"
        assert {answers[method] for method in FOR_ROOT} == {then}
        assert {answers[method] for method in FOR_THE_HOST} == {"PERMISSION_DENIED"}


def test_each_container_has_a_socket_and_a_name_of_its_own(client: Client, daemon: RunningDaemon) -> None:
    parent = client.create(name="parent")
    child = client.create(name="child", parent=parent)
    for box in (parent, child):
        assert calls_inside(box, 0, WHOAMI) == {WHOAMI: f"OK {box.id} 0 {box.name}"}
    daemon.restart()
    for box in (parent, child):
        assert calls_inside(box, 0, WHOAMI) == {WHOAMI: f"OK {box.id} 0 {box.name}"}


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


def test_inside_nobody_is_told_of_the_hosts_disk(client: Client) -> None:
    box = client.create()
    script = """
info = client.system_info()
answer = [bool(info.version), info.HasField("disk")]
"""
    assert script_inside(box, script) == [True, False]
    assert client.system_info().disk.size_bytes > 0
