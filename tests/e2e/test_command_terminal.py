"""`sysproc exec -it` as a person has it: job control, editors, sizes, detach and attach; the terminal is put back.

What ends a session is in `tests.e2e.test_command_streams`.
"""

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sysproc_client import Client, Container
from tests.archives import Archive
from tests.e2e.conftest import Sysproc
from tests.e2e.daemon import RunningDaemon
from tests.e2e.terminals import Terminal
from tests.waiting import wait_until

COMMAND = str(Path(sys.executable).with_name("sysproc"))
PROMPT = "# "


@pytest.fixture
def shell(box: Container, daemon: RunningDaemon) -> Iterator[Terminal]:
    """A shell in the container, which has prompted."""
    with Terminal([COMMAND, "--endpoint", daemon.endpoint, "exec", "-it", box.id, "--", "sh", "-i"]) as terminal:
        terminal.see(PROMPT)
        yield terminal


def runs(box: Container, word: bytes) -> bool:
    return any(word in one.argv for one in box.ps())


def test_jobs_are_stopped_and_go_on_in_background_and_foreground(shell: Terminal, box: Container) -> None:
    shell.type("sleep 1234\r")
    wait_until(lambda: runs(box, b"1234"), "it is in the foreground")
    shell.type("\x1a")
    shell.see("Stopped")
    shell.type("bg\r")
    shell.see("sleep 1234")
    shell.type("jobs\r")
    shell.see("Running")
    shell.type("fg\r")
    shell.see("fg")
    shell.see("sleep 1234")
    shell.type("\x03")
    wait_until(lambda: not runs(box, b"1234"), "it is interrupted")
    shell.type("exit 7\r")
    assert shell.ends() == 7


def test_a_new_size_arrives(shell: Terminal) -> None:
    shell.type("stty size\r")
    shell.see("24 80")
    shell.resize(33, 101)
    shell.type("trap 'stty size' WINCH; stty size\r")
    shell.see("33 101")


def test_vi_edits_a_file(shell: Terminal, box: Container) -> None:
    shell.type("vi /tmp/text\r")
    shell.see("1/1 100%")
    shell.type("ihello")
    shell.see("hello")
    shell.type("\x1b")
    shell.see("- /tmp/text")  # else what follows would be part of a key
    shell.type(":wq\r")
    shell.see(PROMPT)
    assert box.run(["cat", "/tmp/text"]).stdout == b"hello\n"


def test_top_fills_the_screen_and_ends_with_its_key(shell: Terminal) -> None:
    shell.type("top\r")
    shell.see("Load average")
    shell.type("q")
    shell.see(PROMPT)


def test_the_keys_leave_it_to_itself_and_attach_comes_back(
    box: Container, daemon: RunningDaemon, sysproc: Sysproc
) -> None:
    command = [COMMAND, "--endpoint", daemon.endpoint]
    with Terminal([*command, "exec", "-it", box.id, "--", "sh", "-i"]) as terminal:
        before = terminal.settings()
        terminal.see(PROMPT)
        terminal.type("kept=ye''s; echo do''ne\r")
        terminal.see("done")
        terminal.type("\x10\x11")
        said = terminal.see("comes back.").decode()
        assert terminal.ends() == 0
        assert terminal.settings() == before
    found = re.search(r"Detached from (\S+);", said)
    assert found is not None and [one.exec_id for one in box.execs()] == [found[1]]
    for exec_id in ([], [found[1]]):
        with Terminal([*command, "attach", "box", *exec_id]) as terminal:
            terminal.type("echo $kept\r")
            terminal.see("yes")
            terminal.type("\x10\x11")
            terminal.see("comes back.")
            assert terminal.ends() == 0
    with Terminal([*command, "attach", "box", "--detach-keys", "none"]) as terminal:
        terminal.type("\x10\x11\x15exit 5\r")
        assert terminal.ends() == 5
    assert sysproc("attach", "box").returncode == 125
    assert b"no process nosuch" in sysproc("attach", "box", "nosuch").stderr


def test_a_run_is_left_only_if_its_container_is_kept(client: Client, daemon: RunningDaemon) -> None:
    command = [COMMAND, "--endpoint", daemon.endpoint, "run", "-it"]
    with Terminal([*command, "--", "sh", "-i"]) as terminal:
        terminal.see(PROMPT)
        terminal.type("\x10\x11\x15exit 5\r")
        assert terminal.ends() == 5
    assert client.list() == []
    with Terminal([*command, "--keep", "--name", "kept", "--", "sh", "-i"]) as terminal:
        terminal.see(PROMPT)
        terminal.type("\x10\x11")
        terminal.see("comes back.")
        assert terminal.ends() == 0
    assert [one.HasField("exited") for one in client.get("kept").execs()] == [False]


def test_what_runs_without_a_terminal_can_be_attached_too(box: Container, sysproc: Sysproc) -> None:
    with box.exec(["sh", "-c", "echo up; read line; echo $line; exit 6"]) as process:
        assert next(iter(process)).data == b"up\n"
        done = sysproc("attach", "-i", "box", process.exec_id, input=b"from another\n")
        assert (done.returncode, done.stdout.endswith(b"from another\n")) == (6, True)


def test_a_stopped_command_gives_the_terminal_back_and_takes_it_again(box: Container, daemon: RunningDaemon) -> None:
    with Terminal(["bash", "--norc", "--noprofile", "-i"], environment={"PS1": "outer> "}) as outer:
        outer.see("outer> ")
        cooked = outer.settings()
        outer.type(f"{COMMAND} --endpoint {daemon.endpoint} exec -it {box.id} -- sh -i\r")
        outer.see(PROMPT)
        raw = outer.settings()
        assert raw != cooked
        command = child_of(outer.process.pid)
        outer.signal(command, signal.SIGTSTP)
        outer.see("Stopped")
        outer.see("outer> ")
        outer.type("fg\r")
        outer.see("exec -it")
        wait_until(lambda: outer.settings() == raw, "the terminal is raw again")
        outer.type("echo in''side\r")
        outer.see("inside")
        outer.type("exit\r")
        outer.see("outer> ")


def child_of(pid: int) -> int:
    """The only `sysproc` below a process."""
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        if b"sysproc\0" in Path(f"/proc/{one}/cmdline").read_bytes().replace(COMMAND.encode(), b"sysproc"):
            return one
        waiting += [int(child) for child in Path(f"/proc/{one}/task/{one}/children").read_text().split()]
    raise AssertionError("there is no such process")


def test_an_import_shows_a_bar_on_a_terminal_and_nothing_elsewhere(
    daemon: RunningDaemon, sysproc: Sysproc, archive: Archive, tmp_path: Path
) -> None:
    archive.add("data", os.urandom(8 << 20))
    (tmp_path / "image.tar").write_bytes(archive.bytes())
    words = ["image", "import", "imported", str(tmp_path / "image.tar")]
    with Terminal([COMMAND, "--endpoint", daemon.endpoint, *words]) as terminal:
        assert "█" in terminal.see("entries").decode()
        assert terminal.ends() == 0
    assert sysproc(*words, "--replace").stderr == b""
    assert sysproc("image", "delete", "imported").returncode == 0
