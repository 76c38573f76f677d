"""Completion in real shells: names of what is there; without a service, quickly and silently none."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sysproc_client import Client
from sysproc_client.cli.completion import SHELLS
from tests.e2e.daemon import RunningDaemon
from tests.e2e.terminals import Terminal

BIN = Path(sys.executable).parent
START = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source <(sysproc completion bash)"),
    "zsh": (["zsh", "-f", "-i"], "autoload -Uz compinit; compinit -D -u; source <(sysproc completion zsh)"),
    "fish": (["fish", "--no-config", "-i"], "sysproc completion fish | source"),
}


def environment_for(endpoint: str, home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "SYSPROC_ENDPOINT": endpoint,
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home),
        "PS1": "ready> ",
    }


def offered(words: str, endpoint: str) -> list[str]:
    """What click offers to bash for a line; the last word is the one that is typed."""
    count = len(words.split(" "))
    environment = {**os.environ, "SYSPROC_ENDPOINT": endpoint, "_SYSPROC_COMPLETE": "bash_complete"}
    environment |= {"COMP_WORDS": f"sysproc {words}", "COMP_CWORD": str(count)}
    call = [str(BIN / "sysproc")]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_the_name_of_a_living_container(
    shell: str, client: Client, daemon: RunningDaemon, tmp_path: Path
) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    client.create(name="webserver")
    command, source = START[shell]
    with Terminal(command, environment=environment_for(daemon.endpoint, tmp_path)) as terminal:
        terminal.type(f"{source}; echo so''urced\r")
        terminal.see("sourced")
        terminal.type("sysproc exec webs\t-- echo he''llo\r")
        terminal.see("hello")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_a_subcommand_an_option_and_an_exec_id(
    shell: str, client: Client, daemon: RunningDaemon, tmp_path: Path
) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    box = client.create(name="webserver")
    command, source = START[shell]
    for _ in box.exec(["sh", "-c", "echo up; until test -e /go; do sleep 0.05; done; echo gone"], exec_id="nightly-1"):
        break
    with Terminal(command, environment=environment_for(daemon.endpoint, tmp_path)) as terminal:
        terminal.type(f"{source}; echo so''urced\r")
        terminal.see("sourced")
        terminal.type("sysproc exe\twebserver -- echo he''llo\r")
        terminal.see("hello")
        terminal.type("sysproc exec --en\tWORD=wor webserver -- sh -c 'echo ${WORD}ld'\r")
        terminal.see("world")
        terminal.type("sysproc attach webserver night\t; echo le''ft\r")
        box.run(["touch", "/go"])
        terminal.see("gone")
        terminal.see("left")


def test_names_paths_and_ids_are_offered_where_they_are_meant(client: Client, daemon: RunningDaemon) -> None:
    top = client.create(name="top")
    child = client.create(name="child", parent=top)
    nameless = client.create()
    client.volumes.create("data", size="16M", owner="top")
    everyone = {"top", "top/child", top.id, child.id, nameless.id}
    for line in ("inspect ", "exec ", "create --parent ", "mount ", "volume list --owner "):
        assert {*offered(line, daemon.endpoint)} == everyone, line
    assert offered("destroy top top", daemon.endpoint) == ["top/child"]
    assert offered(f"stop {child.id[:6]}", daemon.endpoint) == [child.id]
    for line in ("volume inspect ", "volume delete ", "mount top "):
        assert offered(line, daemon.endpoint) == ["top/data"], line
    assert offered("create --image b", daemon.endpoint) == offered("image delete ", daemon.endpoint) == ["busybox"]
    assert offered("volume create ", daemon.endpoint) == []


def test_the_processes_of_the_container_are_offered_to_who_attaches(client: Client, daemon: RunningDaemon) -> None:
    box, other = client.create(name="one"), client.create(name="other")
    for place, exec_id in ((box, "runs"), (box, "ended"), (other, "elsewhere")):
        process = place.exec(["sh", "-c", "echo up; exec sleep 1000"], exec_id=exec_id)
        next(iter(process))
        if exec_id == "ended":
            process.signal(9)
            process.wait()
    assert {*offered("attach one ", daemon.endpoint)} == {"runs", "ended"}
    assert offered("attach one r", daemon.endpoint) == ["runs"]
    assert offered("attach none ", daemon.endpoint) == []


@pytest.mark.usefixtures("daemon")
def test_words_are_offered_without_a_service_and_names_are_silently_not(tmp_path: Path) -> None:
    nowhere = f"unix://{tmp_path}/none.sock"
    assert offered("vol", nowhere) == ["volume"]
    assert offered("volume gr", nowhere) == ["grow"]
    assert offered("create --mem", nowhere) == ["--memory"]
    assert offered("list -o y", nowhere) == ["yaml"]
    assert offered("inspect ", nowhere) == []


@pytest.mark.usefixtures("daemon")
def test_a_service_that_does_not_answer_keeps_nobody_waiting_for_it(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent.sock"))
        silent.listen()
        assert offered("inspect ", f"unix://{tmp_path}/silent.sock") == []
