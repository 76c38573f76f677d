"""The SDK where something is in its way: lost answers, a stuck input, many processes at once, timeouts."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sysproc_client import Client, Container, TimedOut, Unavailable
from sysproc_client._core import channel_options
from sysproc_client._core.exec_machine import STDIN_WINDOW
from tests.e2e.daemon import RunningDaemon
from tests.waiting import wait_until


@pytest.fixture
def box(client: Client) -> Container:
    return client.create()


@pytest.fixture
def dies_at(daemon: RunningDaemon) -> Iterator["DiesAt"]:
    """A daemon that dies at a failpoint and is started again without it."""
    armed = DiesAt(daemon)
    yield armed
    armed.thread.join()


class DiesAt:
    """Kills the daemon once at a failpoint; another one is started as soon as it is dead."""

    def __init__(self, daemon: RunningDaemon) -> None:
        self._daemon = daemon
        self.thread = threading.Thread(target=self._start_again)

    def __call__(self, failpoint: str) -> None:
        self._daemon.restart(environment={"SYSPROC_FAILPOINTS": f"{failpoint}=kill"})
        self.thread.start()

    def _start_again(self) -> None:
        self._daemon.process.wait()
        self._daemon.start()


@pytest.mark.parametrize("failpoint", ["after_claim", "after_files", "after_spawn"])
def test_a_process_runs_once_though_the_daemon_died_while_it_was_started(
    client: Client, box: Container, dies_at: DiesAt, failpoint: str
) -> None:
    dies_at(f"processes.start.{failpoint}")
    result = box.run(["sh", "-c", "echo x >> /times; cat /times; exit 42"])
    assert (result.exit_code, result.stdout) == (42, b"x\n")


@pytest.mark.parametrize("failpoint", ["create.after_intention", "start.after_build", "start.after_commit"])
def test_a_container_is_made_once_though_the_daemon_died_meanwhile(
    client: Client, dies_at: DiesAt, failpoint: str
) -> None:
    dies_at(f"containers.{failpoint}")
    box = client.create(name="only")
    assert [one.id for one in client.list()] == [box.id]
    assert box.run(["true"]).exit_code == 0


@pytest.mark.parametrize("failpoint", ["after_mark", "after_kill", "after_delete"])
def test_a_tree_is_destroyed_though_the_daemon_died_meanwhile(
    client: Client, box: Container, dies_at: DiesAt, failpoint: str
) -> None:
    client.create(parent=box)
    dies_at(f"containers.destroy.{failpoint}")
    assert box.destroy()[-1] == box.id
    assert client.list() == []


def test_a_daemon_that_stays_away_is_given_up(daemon: RunningDaemon, box: Container) -> None:
    with Client(daemon.endpoint, patience=1) as client:
        process = client.get(box.id).exec(["sh", "-c", "echo up; sleep 1000"], stdin=False)
        chunks = iter(process)
        assert next(chunks).data == b"up\n"
        daemon.kill9()
        with pytest.raises(Unavailable) as caught:
            list(chunks)
    assert caught.value.reason == "ANSWER_LOST"
    daemon.start()


def test_a_timeout_ends_a_process_that_does_not_read_its_input(box: Container) -> None:
    with pytest.raises(TimedOut):
        box.run(["sleep", "1000"], input=bytes(12 * STDIN_WINDOW), timeout=0.5)
    assert [one.argv for one in box.ps() if one.argv[:1] == [b"sleep"]] == []


def test_a_timeout_is_kept_though_the_daemon_hangs(daemon: RunningDaemon, box: Container) -> None:
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(TimedOut):
            box.run(["true"], timeout=0.5)
    finally:
        daemon.process.send_signal(signal.SIGCONT)


def test_input_may_be_written_before_output_is_read(box: Container) -> None:
    process, pieces = box.exec(["cat"]), 6
    for _ in range(pieces):
        process.stdin.write(bytes(STDIN_WINDOW))
    process.stdin.close()
    assert sum(len(chunk.data) for chunk in process) == pieces * STDIN_WINDOW


def test_input_may_be_written_between_two_pieces_of_output(box: Container) -> None:
    process, got = box.exec(["sh", "-c", "echo ready; cat"]), 0
    for chunk in process:
        got += len(chunk.data)
        if chunk.data == b"ready\n":
            for _ in range(4):
                process.stdin.write(bytes(STDIN_WINDOW))
            process.stdin.close()
    assert got == len(b"ready\n") + 4 * STDIN_WINDOW


def test_more_processes_than_a_connection_has_streams_run_at_once(box: Container, daemon: RunningDaemon) -> None:
    running = []
    for _ in range(110):
        process = box.exec(["sh", "-c", "echo up; exec cat"])
        chunks = iter(process)
        assert next(chunks).data == b"up\n"
        running.append((process, chunks))
    assert box.run(["echo", "one more"], timeout=60).stdout == b"one more\n"
    for process, chunks in running:
        process.stdin.close()
        assert list(chunks) == []


def test_a_call_to_a_daemon_that_hangs_ends(daemon: RunningDaemon, box: Container) -> None:
    with Client(daemon.endpoint, timeout=0.5) as client:
        client.whoami()
        daemon.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(TimedOut, match=r"0\.5 s"):
                client.get(box.id)
        finally:
            daemon.process.send_signal(signal.SIGCONT)
    wait_until(lambda: Path(f"/proc/{daemon.pid}").exists() and daemon.endpoint_answers(), "it answers again")


def test_a_daemon_that_hangs_is_found_out_without_a_timeout(
    daemon: RunningDaemon, box: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(monkeypatch, every_ms=1000, patience_ms=500)
    with Client(daemon.endpoint, timeout=None, patience=0) as client:
        process = client.get(box.id).exec(["sh", "-c", "echo up; sleep 1000"], stdin=False)
        chunks = iter(process)
        assert next(chunks).data == b"up\n"
        daemon.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(Unavailable):
                list(chunks)
        finally:
            daemon.process.send_signal(signal.SIGCONT)


@pytest.mark.slow
def test_a_daemon_lets_its_clients_ask_whether_it_is_there(
    daemon: RunningDaemon, box: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As often as it may be; a service that takes that for abuse hangs up at the third time."""
    ask(monkeypatch, every_ms=5200, patience_ms=10_000)
    with Client(daemon.endpoint, patience=0) as client:
        assert client.get(box.id).run(["sleep", "20"]).exit_code == 0


def ask(monkeypatch: pytest.MonkeyPatch, *, every_ms: int, patience_ms: int) -> None:
    """Clients ask their service so often whether it is still there, and wait so long for a word."""
    changed = {
        "grpc.keepalive_time_ms": every_ms,
        "grpc.keepalive_timeout_ms": patience_ms,
        "grpc.http2.ping_timeout_ms": patience_ms,
    }
    options = tuple((name, changed.get(name, value)) for name, value in channel_options.OPTIONS)
    monkeypatch.setattr(channel_options, "OPTIONS", options)
