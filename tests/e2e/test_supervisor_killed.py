"""Supervisors that somebody kills: how their processes ended is written down, and then it is so."""

import os
import signal

import psutil
import pytest

from sysproc_client import Client, Container, Process
from tests.e2e.daemon import RunningDaemon
from tests.waiting import wait_until

SET_UID = "cp /bin/busybox /busybox-set-uid && chmod 4755 /busybox-set-uid"
PROGRAMS = {"plain": (["sleep", "1000"], 0), "set-uid": (["/busybox-set-uid", "sleep", "1000"], 1000)}


def begin(box: Container, program: str) -> tuple[Process, psutil.Process]:
    """One that sleeps, and its process on the host, once it is what was asked for."""
    argv, user = PROGRAMS[program]
    script = ["sh", "-c", 'echo begins; exec "$@"', "sh", *argv]
    process = box.exec(script, user=user, stdin=False)
    output = iter(process)
    assert next(output).data == b"begins\n"
    wait_until(lambda: sleeping(box) is not None, "it sleeps")
    pid = sleeping(box)
    assert pid is not None
    return process, psutil.Process(pid)


def sleeping(box: Container) -> int | None:
    """The process's pid on the host."""
    return next((one.host_pid for one in box.ps() if list(one.argv[-2:]) == [b"sleep", b"1000"]), None)


@pytest.fixture
def box(client: Client) -> Container:
    made = client.create()
    assert made.run(["sh", "-c", SET_UID]).exit_code == 0
    return made


@pytest.mark.parametrize("program", PROGRAMS)
def test_its_process_has_ended_when_that_is_said(box: Container, program: str) -> None:
    process, running = begin(box, program)
    os.kill(running.ppid(), signal.SIGKILL)
    assert process.wait().signal == signal.SIGKILL
    wait_until(lambda: not running.is_running(), "the process is gone")


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_daemon_that_comes_later_sees_to_it_too(daemon: RunningDaemon, box: Container, program: str) -> None:
    process, running = begin(box, program)
    exec_id = process.exec_id
    daemon.kill9()
    os.kill(running.ppid(), signal.SIGKILL)
    daemon.start()
    with Client(daemon.endpoint) as again:
        (kept,) = [one for one in again.get(box.id).execs() if one.exec_id == exec_id]
        assert kept.exited.status.signal == signal.SIGKILL
    wait_until(lambda: not running.is_running(), "the process is gone")
