"""The `sysproc` command between other programs: signals to it, its standard streams in every state, a lost daemon."""

import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from sysproc_client import Client, Container
from tests.e2e.daemon import RunningDaemon
from tests.waiting import PATIENCE_S, wait_until

Start = Callable[..., "subprocess.Popen[bytes]"]

FOREVER = ["sh", "-c", "echo up; while :; do sleep 0.1; done"]


@pytest.fixture
def box(client: Client) -> Container:
    return client.create()


@pytest.fixture
def start(daemon: RunningDaemon) -> Iterator[Start]:
    """Starts the `sysproc` command (by another one); it is killed in the end, if it still runs."""
    command = [str(Path(sys.executable).with_name("sysproc")), "--endpoint", daemon.endpoint]
    started: list[subprocess.Popen[bytes]] = []

    def run(*arguments: str, by: Sequence[str] = (), **how: Any) -> "subprocess.Popen[bytes]":
        how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
        started.append(subprocess.Popen([*by, *command, *arguments], **how))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def first_line(process: "subprocess.Popen[bytes]") -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


def closing(redirections: str) -> list[str]:
    """What begins a command line whose command has these redirections."""
    return ["sh", "-c", f'exec "$@" {redirections}', "sh"]


def runs(box: Container, word: bytes) -> bool:
    return any(word in one.argv for one in box.ps())


# -- a daemon that dies


def test_a_second_interrupt_ends_a_command_whose_daemon_is_away(
    start: Start, daemon: RunningDaemon, box: Container
) -> None:
    process = start("exec", box.id, "--", *FOREVER)
    assert first_line(process) == b"up\n"
    daemon.kill9()
    assert process.stderr is not None
    assert b"waiting" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    wait_until(lambda: signal_is_taken(process.pid, signal.SIGINT), "the first one is taken")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 130
    daemon.start()
    assert runs(box, FOREVER[2].encode()), "the process goes on"


def signal_is_taken(pid: int, number: int) -> bool:
    """Whether no such signal is pending any more."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    pending = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd", "ShdPnd"))]
    return not any(mask >> (number - 1) & 1 for mask in pending)


def test_an_interrupt_waits_for_a_daemon_that_comes_back(start: Start, daemon: RunningDaemon, box: Container) -> None:
    process = start("exec", box.id, "--", "sh", "-c", "trap 'exit 9' INT; echo up; while :; do sleep 0.1; done")
    assert first_line(process) == b"up\n"
    daemon.kill9()
    assert process.stderr is not None
    assert b"waiting" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    daemon.start()
    assert process.wait(PATIENCE_S) == 9


# -- signals


def test_a_run_that_is_interrupted_while_it_creates_leaves_nothing(
    start: Start, daemon: RunningDaemon, client: Client, tmp_path: Path
) -> None:
    marker = daemon.directory / "blocked"
    daemon.restart(environment={"SYSPROC_FAILPOINTS": f"containers.create.after_intention=1*block({marker})"})
    process = start("run", "--", "true")
    wait_until(marker.exists, "it is being created")
    process.send_signal(signal.SIGINT)
    wait_until(lambda: signal_is_taken(process.pid, signal.SIGINT), "the command has it")
    marker.unlink()
    assert process.wait(PATIENCE_S) == 130
    assert client.list() == []


@pytest.mark.parametrize(
    ("line", "failpoint"),
    [
        ("create --name web", "containers.create.after_intention"),
        ("volume create data --size 16M", "volumes.make.after_copy"),
    ],
)
def test_what_is_interrupted_while_it_is_made_is_made_and_said(
    start: Start, daemon: RunningDaemon, client: Client, line: str, failpoint: str
) -> None:
    marker = daemon.directory / "blocked"
    daemon.restart(environment={"SYSPROC_FAILPOINTS": f"{failpoint}=1*block({marker})"})
    process = start(*line.split())
    wait_until(marker.exists, "it is being made")
    process.send_signal(signal.SIGINT)
    wait_until(lambda: signal_is_taken(process.pid, signal.SIGINT), "the command has it")
    marker.unlink()
    out, err = process.communicate(timeout=PATIENCE_S)
    made = [box.id for box in client.list()] + [volume.name for volume in client.volumes.list()]
    assert (process.returncode, [out.decode().strip()]) == (128 + signal.SIGINT, made)
    assert b"was made all the same" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminal_session_that_is_terminated_takes_its_shell_along(
    start: Start, box: Container, number: signal.Signals
) -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    process = start("exec", "-it", box.id, "--", "sh", "-i", stdin=theirs, stdout=theirs, stderr=theirs)
    put_a_job_in_the_foreground(ours, box)
    process.send_signal(number)
    assert process.wait(PATIENCE_S) == 128 + number
    assert termios.tcgetattr(theirs) == before
    assert not runs(box, b"1234") and not runs(box, b"-i")
    os.close(ours)
    os.close(theirs)


def test_a_terminal_that_goes_away_takes_its_shell_along(start: Start, box: Container) -> None:
    ours, theirs = pty.openpty()
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    process = start("exec", "-it", box.id, "--", "sh", "-i", by=["setsid", "--ctty"], **streams)
    os.close(theirs)
    put_a_job_in_the_foreground(ours, box)
    os.close(ours)
    assert process.wait(PATIENCE_S) == 128 + signal.SIGHUP
    assert not runs(box, b"1234") and not runs(box, b"-i")


def put_a_job_in_the_foreground(terminal: int, box: Container) -> None:
    """In the shell at the other end of the terminal, once it has prompted."""
    shown = b""
    while b"#" not in shown:
        shown += os.read(terminal, 4096)
    os.write(terminal, b"sleep 1234\r")
    wait_until(lambda: runs(box, b"1234"), "a job is in the foreground")


def test_a_terminal_without_input_can_be_interrupted(start: Start, box: Container) -> None:
    ours, theirs = pty.openpty()
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    script = "trap 'exit 9' INT; echo up; while :; do sleep 0.1; done"
    process = start("exec", "-t", box.id, "--", "sh", "-c", script, by=["setsid", "--ctty"], **streams)
    os.close(theirs)
    shown = b""
    while b"up" not in shown:
        shown += os.read(ours, 4096)
    os.write(ours, b"\x03")
    assert process.wait(PATIENCE_S) == 9
    os.close(ours)


# -- standard streams


def test_whose_output_nobody_reads_ends_as_a_local_program_would(start: Start, box: Container) -> None:
    process = start("exec", box.id, "--", "yes", "1234")
    assert first_line(process) == b"1234\n"
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(PATIENCE_S) == 128 + signal.SIGPIPE
    assert not runs(box, b"1234")


def test_what_ignores_sigpipe_does_not_stay_either(start: Start, box: Container) -> None:
    process = start("exec", box.id, "--", "sh", "-c", "trap '' PIPE; while :; do echo 1234; done")
    assert first_line(process) == b"1234\n"
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(PATIENCE_S) == 128 + signal.SIGPIPE
    assert [one for one in box.ps() if one.argv[:1] == [b"sh"]] == []


def test_a_closed_input_is_an_empty_one(start: Start, box: Container) -> None:
    process = start("exec", "-i", box.id, "--", "sh", "-c", "cat; echo end", by=closing("<&-"))
    assert process.communicate(timeout=PATIENCE_S) == (b"end\n", b"")
    assert process.returncode == 0


def test_all_streams_may_be_closed(start: Start, box: Container) -> None:
    process = start("exec", box.id, "--", "true", by=closing("<&- >&- 2>&-"))
    assert process.wait(PATIENCE_S) == 0


def test_an_input_that_does_not_wait_is_waited_for(start: Start, box: Container) -> None:
    theirs, ours = os.pipe()
    os.set_blocking(theirs, False)
    process = start("exec", "-i", box.id, "--", "sh", "-c", "echo up; cat", stdin=theirs)
    os.close(theirs)
    assert first_line(process) == b"up\n"
    os.write(ours, b"late\n")
    assert first_line(process) == b"late\n"
    os.close(ours)
    assert process.wait(PATIENCE_S) == 0


def test_an_output_that_does_not_wait_gets_everything(start: Start, box: Container) -> None:
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    total = 4 << 20
    process = start("exec", box.id, "--", "head", "-c", str(total), "/dev/zero", stdout=theirs)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        assert len(pipe.read()) == total
    assert process.wait(PATIENCE_S) == 0


def test_an_input_that_cannot_be_read_is_said_and_is_its_end(start: Start, box: Container) -> None:
    unreadable = os.open("/dev/null", os.O_WRONLY)
    process = start("exec", "-i", box.id, "--", "cat", stdin=unreadable)
    os.close(unreadable)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (out, process.returncode) == (b"", 0)
    assert b"Bad file descriptor" in err
