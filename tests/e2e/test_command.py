"""The `sysproc` command as scripts use it: what it prints, its exit codes, bytes through pipes, its errors."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sysproc_client import Client
from tests.e2e.conftest import Sysproc
from tests.e2e.daemon import RunningDaemon
from tests.waiting import wait_until

FIELDS = {"id", "name", "parent", "state", "image", "created"}


def made(sysproc: Sysproc, *options: str) -> str:
    """`sysproc create …`: its one line."""
    done = sysproc("create", *options)
    assert (done.returncode, done.stderr) == (0, b"")
    assert re.fullmatch(rb"[0-9a-f]{16}\n", done.stdout)
    return done.stdout.decode().strip()


def test_what_is_created_is_listed(sysproc: Sysproc) -> None:
    top = made(sysproc, "--name", "web", "--memory", "64M", "--cpus", "0.5", "--pids", "32", "--label", "a=b")
    child = made(sysproc, "--parent", "web", "--name", "worker", "--hostname", "w1", "--size", "64M")
    listed = json.loads(sysproc("-o", "json", "list").stdout)
    assert [(one["id"], one["name"], one["parent"], one["state"]) for one in listed] == [
        (top, "web", "", "running"),
        (child, "worker", top, "running"),
    ]
    assert all(one.keys() >= FIELDS for one in listed)
    assert listed == json.loads(sysproc("list", "-o", "json").stdout)
    assert sysproc("exec", "web/worker", "--", "hostname").stdout == b"w1\n"


def test_what_people_read_names_everything(sysproc: Sysproc) -> None:
    top = made(sysproc, "--name", "web")
    child = made(sysproc, "--parent", top)
    for subcommand in ("list", "tree"):
        shown = sysproc(subcommand).stdout.decode()
        assert top in shown and child in shown and "web" in shown
        assert "\x1b" not in shown
    assert json.loads(sysproc("inspect", "web", "-o", "json").stdout)["id"] == top
    assert "init" in sysproc("ps", "web").stdout.decode()


def test_a_dry_run_of_create_only_checks(sysproc: Sysproc, client: Client) -> None:
    done = sysproc("create", "--name", "web", "--memory", "64M", "--dry-run")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    told = json.loads(sysproc("create", "--name", "web", "--memory", "64M", "--dry-run", "-o", "json").stdout)
    assert (told["id"], told["name"], told["limits"]["memory_bytes"], told["created"]) == (None, "web", 64 << 20, None)
    assert client.list() == []
    made(sysproc, "--name", "web")
    refused = sysproc("create", "--name", "web", "--dry-run")
    assert refused.returncode == 1 and b"web" in refused.stderr


def test_verbs_change_the_state_and_can_be_repeated(sysproc: Sysproc) -> None:
    box = made(sysproc)
    for verb, state in (("freeze", "frozen"), ("thaw", "running"), ("stop", "stopped"), ("start", "running")):
        for _ in range(2):
            assert sysproc(verb, box).returncode == 0
        assert json.loads(sysproc("list", "-o", "json").stdout)[0]["state"] == state


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 77", 77), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
)
def test_the_exit_code_is_the_commands(sysproc: Sysproc, script: str, code: int) -> None:
    box = made(sysproc)
    assert sysproc("exec", box, "--", "sh", "-c", script).returncode == code
    assert sysproc("run", "--", "sh", "-c", script).returncode == code


@pytest.mark.parametrize(("word", "code"), [("nosuch", 127), ("/etc", 126)])
def test_what_cannot_be_executed_has_the_shells_codes_and_says_why(sysproc: Sysproc, word: str, code: int) -> None:
    done = sysproc("exec", made(sysproc), "--", word)
    assert done.returncode == code
    assert word.encode() in done.stderr


def test_bytes_go_through_unchanged_and_apart(sysproc: Sysproc) -> None:
    data = os.urandom(2_000_000)
    box = made(sysproc)
    done = sysproc("exec", "-i", box, "--", "sh", "-c", "cat; echo problem >&2", input=data)
    assert (done.stdout == data, done.stderr) == (True, b"problem\n")
    assert sysproc("run", "-i", "--", "cat", input=data).stdout == data


def test_without_i_the_input_is_left_alone(sysproc: Sysproc) -> None:
    assert sysproc("exec", made(sysproc), "--", "cat", input=b"not for it").stdout == b""


def test_a_process_gets_its_environment_directory_and_user(sysproc: Sysproc) -> None:
    script = ["--", "sh", "-c", "echo $A $B; pwd; id -u; id -g"]
    box = made(sysproc, "--env", "A=1", "-e", "B=2")
    done = sysproc("exec", "-e", "B=3", "--env", "C=4", "-w", "/tmp", "-u", "5:6", box, *script)
    assert done.stdout.split() == [b"1", b"3", b"/tmp", b"5", b"6"]
    done = sysproc("run", "-e", "A=1", "--env", "B=2", "-w", "/tmp", "-u", "5", *script)
    assert done.stdout.split() == [b"1", b"2", b"/tmp", b"5", b"5"]


def test_run_leaves_nothing_unless_told_to(sysproc: Sysproc, client: Client) -> None:
    assert sysproc("run", "--", "true").returncode == 0
    assert client.list() == []
    kept = sysproc("run", "--keep", "--", "true").stderr.decode().strip()
    assert [box.id for box in client.list()] == [kept]


def test_destroy_prints_what_went_deepest_first(sysproc: Sysproc, client: Client) -> None:
    top = made(sysproc, "--name", "a")
    child = made(sysproc, "--parent", "a", "--name", "b")
    other = made(sysproc)
    expected = f"{child}\n{top}\n{other}\n".encode()
    assert sysproc("destroy", "--dry-run", "a", other).stdout == expected
    assert len(client.list()) == 3
    assert sysproc("destroy", "a", other).stdout == expected
    assert client.list() == []


def test_limits_and_labels_are_changed_on_the_living(sysproc: Sysproc, client: Client) -> None:
    box = made(sysproc, "--memory", "64M")
    assert sysproc("update", box, "--memory", "96M", "--pids", "20", "--label", "x=y").returncode == 0
    message = client.get(box).message
    assert (message.limits.memory_bytes, message.limits.pids, dict(message.labels)) == (96 << 20, 20, {"x": "y"})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inspect", "nosuch"], "nosuch"),
        (["exec", "nosuch", "--", "true"], "nosuch"),
        (["create", "--image", "nosuch"], "nosuch"),
        (["create", "--memory", "lots"], "lots"),
        (["create", "--name", "a/b"], "name"),
        (["create", "--size", "1K"], "1048576"),
        (["create", "--parent", "0123456789abcdef"], "0123456789abcdef"),
        (["destroy", "nosuch"], "nosuch"),
        (["exec", "-u", "root", "x", "--", "true"], "UID"),
    ],
    ids=" ".join,
)
def test_an_error_says_what_is_wrong_and_changes_nothing(
    sysproc: Sysproc, client: Client, arguments: list[str], words: str
) -> None:
    done = sysproc(*arguments)
    assert done.returncode not in (0, 126, 127)
    assert words in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert client.list() == []


def test_our_own_errors_of_exec_and_run_are_125(sysproc: Sysproc) -> None:
    assert sysproc("exec", "nosuch", "--", "true").returncode == 125
    assert sysproc("run", "--image", "nosuch", "--", "true").returncode == 125


def test_a_daemon_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("sysproc")), "--endpoint", f"unix://{tmp_path}/none.sock", "list"]
    done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    assert done.returncode
    assert b"sysprocd" in done.stderr and b"Traceback" not in done.stderr


def test_a_terminal_is_given_restored_and_interrupted(sysproc: Sysproc, daemon: RunningDaemon) -> None:
    box = made(sysproc)
    ours, theirs = pty.openpty()
    command = [str(Path(sys.executable).with_name("sysproc")), "--endpoint", daemon.endpoint]
    script = "stty noflsh; trap 'exit 9' INT; tty; while :; do sleep 0.05; done"
    process = subprocess.Popen(
        [*command, "exec", "-it", box, "--", "sh", "-c", script],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    while b"/dev/pts/" not in shown:
        shown += os.read(ours, 4096)
    os.write(ours, b"\x03")
    assert process.wait(30) == 9
    os.close(ours)


def test_an_interrupted_run_leaves_nothing(sysproc: Sysproc, client: Client, daemon: RunningDaemon) -> None:
    command = [str(Path(sys.executable).with_name("sysproc")), "--endpoint", daemon.endpoint, "run", "--"]
    process = subprocess.Popen([*command, "sh", "-c", "echo up; exec sleep 1000"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(30) != 0
    process.stdout.close()
    wait_until(lambda: client.list() == [], "it is destroyed")
