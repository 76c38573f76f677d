"""The unit that is shipped: restarting, stopping and killing the service leaves containers as they are."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sysproc_client import Client, Container
from tests.e2e.daemon import RunningDaemon
from tests.e2e.inside import init_of
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.skipif(not Path("/run/systemd/system").is_dir(), reason="PID 1 is not systemd; it is in the VM"),
]

UNIT = Path(__file__).parents[2] / "packaging" / "sysprocd.service"
NAME = "sysprocd-under-test.service"
INSTALLED = Path("/run/systemd/system") / NAME


def systemctl(*words: str) -> str:
    """Run systemctl; its output. What it complains of is in the error."""
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def service(daemon: RunningDaemon) -> Iterator[RunningDaemon]:
    """The shipped unit, with the directories of a test's daemon and our commands, running instead of that daemon."""
    daemon.terminate()
    daemon.kill_launcher()
    command = " ".join(word for word in daemon.command() if not word.startswith("--log-format"))
    text = UNIT.read_text().replace("/usr/bin/sysprocd --cgroup-root=sysproc", command)
    kept = [line for line in text.splitlines() if not line.startswith(("RuntimeDirectory", "StateDirectory"))]
    INSTALLED.write_text("\n".join(kept) + f"\n[Service]\nEnvironment=PATH={os.environ['PATH']}\n")
    systemctl("daemon-reload")
    systemctl("start", NAME)
    yield daemon
    with Client(daemon.endpoint) as client:
        for box in client.list():
            box.destroy()
    systemctl("stop", NAME)
    INSTALLED.unlink()
    systemctl("daemon-reload")
    daemon.start()


@pytest.fixture
def box(service: RunningDaemon) -> Iterator[Container]:
    """A container of the service, with a process in it."""
    with Client(service.endpoint) as client:
        yield client.create(name="stays")


def main_pid() -> int:
    """Of the service."""
    return int(systemctl("show", "--property=MainPID", "--value", NAME))


@pytest.mark.parametrize("verb", ["restart", "kill -9"])
def test_containers_and_their_processes_outlive_the_service(service: RunningDaemon, box: Container, verb: str) -> None:
    init, daemon_pid = init_of(box), main_pid()
    working = box.exec(["cat"], exec_id="working")
    working.stdin.write(b"before ")
    assert next(iter(working)).data == b"before "
    if verb == "restart":
        systemctl("restart", NAME)
    else:
        systemctl("kill", "--signal=KILL", "--kill-who=main", NAME)
        wait_until(lambda: main_pid() not in (0, daemon_pid), "it was started again (Restart=)")
        wait_until(service.endpoint_answers, "it answers again")
    assert main_pid() != daemon_pid
    with Client(service.endpoint) as client:
        again = client.get("stays")
        assert (again.state, init_of(again)) == ("running", init)
        assert [one.exec_id for one in again.execs() if not one.HasField("exited")] == ["working"]


def test_while_the_service_is_stopped_containers_run(service: RunningDaemon, box: Container) -> None:
    init = init_of(box)
    systemctl("stop", NAME)
    assert Path(f"/proc/{init}").is_dir()
    systemctl("start", NAME)
    with Client(service.endpoint) as client:
        assert init_of(client.get("stays")) == init
