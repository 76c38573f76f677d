"""What the `sysproc` command prints, for programs and for people, wherever its output goes.

What its subcommands do is in `tests.e2e.test_command`.
"""

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sysproc_client import Client
from sysproc_client.cli.certificates import cert_command
from sysproc_client.cli.images import image_command
from sysproc_client.cli.main import COMMANDS
from sysproc_client.cli.volumes import volume_command
from tests.archives import Archive
from tests.e2e.conftest import Sysproc
from tests.e2e.daemon import RunningDaemon

COMMAND = str(Path(sys.executable).with_name("sysproc"))
VOLUME_FIELDS = {"name", "size", "owner", "encrypted", "filesystems", "attached_to"}
FIELDS = {"id", "name", "parent", "state", "image", "created"}

# One line of each subcommand, in an order in which all of them work, and what is true of its JSON. `a` is there.
LINES: dict[str, tuple[str, Callable[[Any], object]]] = {
    "create": ("--name b --parent a", lambda it: it["name"] == "b" and len(it["id"]) == 16),
    "list": ("", lambda it: [one["name"] for one in it if one.keys() >= FIELDS] == ["a", "b"]),
    "tree": ("", lambda it: it[0]["name"] == "a" and it[0]["children"][0]["name"] == "b"),
    "inspect": ("a/b", lambda it: it["path"] == "a/b"),
    "update": ("a --pids 50", lambda it: it["limits"]["pids"] == 50),
    "ps": ("a", lambda it: it[0]["pid"] == 1),
    "freeze": ("a", lambda it: it[0]["state"] == "frozen"),
    "thaw": ("a", lambda it: it[0]["state"] == "running"),
    "stop": ("a/b", lambda it: it[0]["state"] == "stopped"),
    "start": ("a/b", lambda it: it[0]["state"] == "running"),
    "volume create": ("data --size 16M --owner a", lambda it: (it["name"], it["size"]) == ("data", 16 << 20)),
    "mount": ("a data /data", lambda it: [one["path"] for one in it["attached_to"]] == ["/data"]),
    "volume list": ("", lambda it: [one["name"] for one in it if one.keys() >= VOLUME_FIELDS] == ["sealed", "data"]),
    "umount": ("a /data", lambda it: it["path"] == "/data"),
    "volume grow": ("a/data --size 32M", lambda it: it["size"] == 32 << 20),
    "volume inspect": ("a/data", lambda it: it["attached_to"] == [] and it["filesystems"][0]["label"] == "data"),
    "volume check": ("a/data", lambda it: [(one["filesystem"], one["result"]) for one in it] == [("data", "clean")]),
    "volume clone": ("a/data copy", lambda it: (it["name"], it["size"], it["snapshot_of"]) == ("copy", 32 << 20, "")),
    "volume snapshot": ("a/data before", lambda it: it["snapshot_of"] == "data" and it["snapshot_time"]),
    "volume export": ("a/data {image}", lambda it: it["size"] == 32 << 20 and len(it["digest"]) == 64),
    "volume import": ("back {image} --owner a", lambda it: (it["name"], it["origin"]) == ("back", "made")),
    "volume shrink": ("a/copy --size 24M", lambda it: it["size"] == 24 << 20),
    "volume attach": ("a a/data", lambda it: it["path"] == "/dev/vsf/data"),
    "volume detach": ("a a/data", lambda it: it == {"container": "a", "volume": "a/data"}),
    "volume trust": ("a/data", lambda it: it["origin"] == "trusted"),
    "volume lock": ("a/sealed", lambda it: it["unlocked"] is False),
    "volume passwd": (
        "a/sealed --add --key-file {key} --new-key-file {tar}",
        lambda it: it["key_slots"] == {"data": [0, 1]},
    ),
    "volume delete": ("a/data", lambda it: it == ["a/data"]),
    "destroy": ("a/b", lambda it: len(it) == 1 and len(it[0]) == 16),
    "whoami": ("", lambda it: it["authority"] is True),
    "info": ("", lambda it: it["features"][0]["name"]),
    "version": ("", lambda it: it["sysproc"] == it["sysprocd"] and it["fits"]),
    "image import": ("imported {tar}", lambda it: it["name"] == "imported" and it["digest"]),
    "image list": ("", lambda it: [one["name"] for one in it] == ["busybox", "imported"]),
    "image inspect": ("imported", lambda it: (it["entries"], it["used_by"], it["warnings"]) == (1, [], [])),
    "image delete": ("imported", lambda it: it == ["imported"]),
    "cert init": ("{tls} --host box", lambda it: (it["what"], it["names"]) == ("server", ["box"])),
    "cert issue": ("--dir {tls} --host", lambda it: it["names"] == ["spiffe://sysproc/host"] and it["key"]),
    "cert list": ("--dir {tls}", lambda it: [one["state"] for one in it] == ["valid", "valid"]),
    "cert revoke": ("--dir {tls} {tls}/server.pem", lambda it: int(it["serial"], 16)),
}
# Their output is the command's inside; ours is none.
OF_COMMANDS_INSIDE = {"exec": "a -- echo inside", "run": "-- echo inside"}
# Tested by themselves: in `tests.e2e.test_doctor`, since its exit code says what it has found, and
# `tests.e2e.test_completion`, since a shell reads it; and `tests.e2e.test_command_terminal`, since it needs one.
OF_THEIR_OWN = {"doctor", "completion", "attach"}


def json_of(sysproc: Sysproc, *arguments: str) -> Any:
    done = sysproc(*arguments)
    assert (done.returncode, done.stderr) == (0, b""), arguments
    return json.loads(done.stdout)


def test_the_lines_here_are_all_subcommands() -> None:
    groups = {"image": image_command, "volume": volume_command, "cert": cert_command}
    grouped = {f"{group} {name}" for group, command in groups.items() for name in command.commands}
    assert LINES.keys() | OF_COMMANDS_INSIDE.keys() | OF_THEIR_OWN == (COMMANDS.keys() - groups.keys()) | grouped


@pytest.mark.parametrize("after", [False, True], ids=["before the subcommand", "after it"])
def test_every_subcommand_prints_json_if_asked(
    sysproc: Sysproc, client: Client, archive: Archive, tmp_path: Path, after: bool
) -> None:
    archive.add("etc/motd", b"hello")
    (tmp_path / "image.tar").write_bytes(archive.bytes())
    (tmp_path / "key").write_bytes(b"secret")
    client.volumes.create("sealed", size="40M", owner=client.create(name="a"), encrypt="fs", secret=b"secret")
    for subcommand, (line, holds) in LINES.items():
        names = {"tar": "image.tar", "tls": "tls", "image": "image.zst", "key": "key"}
        files = {word: tmp_path / name for word, name in names.items()}
        words = [*subcommand.split(), *line.format(**files).split()]
        # After `mount`, `-o` is about the mount, as for mount(8).
        option = "--output" if subcommand == "mount" else "-o"
        told = json_of(sysproc, *([*words, option, "json"] if after else ["-o", "json", *words]))
        assert holds(told), (subcommand, told)


# What shows something, and the names of it in the next command.
SHOWING = {
    "list": ["{a}", "{b}"],
    "tree": ["{a}", "{b}"],
    "inspect a": ["{a}"],
    "volume list": ["{a}/data"],
    "volume inspect a/data": ["{a}/data"],
    "image list": ["busybox"],
    "image inspect busybox": ["busybox"],
    "ps a": ["1"],
}


def test_yaml_says_what_json_says_and_names_are_for_the_next_command(sysproc: Sysproc, client: Client) -> None:
    box = client.create(name="a")
    ids = {"a": box.id, "b": client.create(name="b", parent=box).id}
    client.volumes.create("data", size="16M", owner=box.id)
    for line, names in SHOWING.items():
        asked = sysproc(*line.split(), "-o", "yaml").stdout
        assert yaml.safe_load(asked).__class__ is json_of(sysproc, *line.split(), "-o", "json").__class__
        if line != "ps a":  # whose processor time goes on
            assert yaml.safe_load(asked) == json_of(sysproc, *line.split(), "-o", "json")
        named = sysproc(*line.split(), "-o", "name").stdout.decode().splitlines()
        assert named == [name.format(**ids) for name in names], line
    assert sysproc("inspect", sysproc("list", "-o", "name").stdout.split()[1]).returncode == 0
    assert sysproc("volume", "inspect", sysproc("volume", "list", "-o", "name").stdout.strip()).returncode == 0


def test_what_has_no_name_says_so(sysproc: Sysproc) -> None:
    done = sysproc("info", "-o", "name")
    assert (done.returncode, done.stdout) == (2, b"") and b"-o json" in done.stderr


def test_wide_has_more_columns_and_the_same_lines(sysproc: Sysproc, client: Client) -> None:
    box = client.create(name="a", memory="64M", labels={"k": "v"})
    client.volumes.create("data", size="16M", owner=box.id)
    usual, wide = (sysproc("list", "-o", form).stdout.decode().splitlines() for form in ("table", "wide"))
    assert wide[0].startswith(usual[0]) and "memory_bytes 64M" in wide[1] and "k=v" in wide[1]
    for line in (["volume", "list"], ["image", "list"], ["ps", "a"], ["info"]):
        usual, wide = (sysproc(*line, "-o", form).stdout.decode().splitlines() for form in ("table", "wide"))
        assert len(wide) == len(usual) and len("".join(wide)) > len("".join(usual)), line


@pytest.mark.parametrize(("subcommand", "line"), OF_COMMANDS_INSIDE.items())
def test_the_output_of_a_command_inside_is_its_own(
    sysproc: Sysproc, client: Client, subcommand: str, line: str
) -> None:
    client.create(name="a")
    assert sysproc(subcommand, "-o", "json", *line.split()).stdout == b"inside\n"


def test_of_several_that_are_named_one_that_fails_keeps_no_other_from_it(sysproc: Sysproc, client: Client) -> None:
    one, other = client.create(name="one"), client.create(name="other")
    done = sysproc("stop", "one", "nosuch", "other", "nosuch2")
    assert (done.returncode, done.stdout) == (1, b"")
    assert [line.split(b":")[1] for line in done.stderr.splitlines()[::2]] == [b" nosuch", b" nosuch2"]
    assert {box.refresh().state for box in (one, other)} == {"stopped"}
    done = sysproc("destroy", "one", "nosuch", "other")
    assert (done.returncode, done.stdout.decode().split()) == (1, [one.id, other.id])
    assert client.list() == []


def test_what_went_with_its_parent_is_gone_as_asked(sysproc: Sysproc, client: Client) -> None:
    parent = client.create()
    child = client.create(parent=parent)
    for dry_run in (["--dry-run"], []):
        done = sysproc("destroy", *dry_run, parent.id, child.id)
        assert (done.returncode, done.stdout.decode().split()) == (0, [child.id, parent.id])


def test_labels_cannot_be_given_and_cleared_at_once(sysproc: Sysproc, client: Client) -> None:
    box = client.create(labels={"a": "b"})
    done = sysproc("update", box.id, "--label", "x=y", "--clear-labels")
    assert done.returncode == 2 and b"--clear-labels" in done.stderr
    assert dict(box.refresh().message.labels) == {"a": "b"}


def test_who_wants_a_child_of_a_frozen_one_is_told_which_one_that_is(sysproc: Sysproc, client: Client) -> None:
    frozen = client.create(name="frozen").freeze()
    done = sysproc("create", "--parent", "frozen")
    assert done.returncode == 1
    assert f"Container {frozen.id} is frozen" in done.stderr.decode()
    assert [box.id for box in client.list()] == [frozen.id]
    frozen.thaw()


# -- where it goes


@pytest.mark.parametrize(
    ("line", "codes"),
    [
        ("sysproc list >&-", {1}),
        ("sysproc --help >&-", {1}),
        ("sysproc list > /dev/full", {1}),
        ("sysproc list | head -0; exit ${PIPESTATUS[0]}", {0, 141}),
        ("sysproc --help | head -0; exit ${PIPESTATUS[0]}", {0, 141}),
        ("sysproc list >&- 2>&-", {1}),
        ("sysproc list <&- > /dev/null", {0}),
        ("sysproc nosuch 2>&-", {2}),
    ],
)
def test_an_output_that_takes_nothing_ends_it_quietly(daemon: RunningDaemon, line: str, codes: set[int]) -> None:
    environment = {**os.environ, "SYSPROC_ENDPOINT": daemon.endpoint}
    script = f'exec 9>&2; sysproc() {{ {COMMAND} "$@"; }}; {line}'
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, timeout=60, check=False)
    assert done.returncode in codes
    assert b"Traceback" not in done.stderr and len(done.stderr.splitlines()) <= 1, done.stderr


def test_a_list_is_never_cut(sysproc: Sysproc, client: Client, daemon: RunningDaemon) -> None:
    box = client.create(name="a" * 63)
    for subcommand in ("list", "tree"):
        shown = on_terminal(daemon, 30, subcommand)
        assert box.id in shown and box.name in shown
        assert box.id in sysproc(subcommand).stdout.decode()


def test_a_window_too_narrow_for_the_table_gets_a_block_of_each_row(client: Client, daemon: RunningDaemon) -> None:
    boxes = [client.create(name=name) for name in ("one", "two")]
    wide, narrow = (on_terminal(daemon, columns, "list", NO_COLOR="1").splitlines() for columns in (100, 30))
    assert wide[1].split()[:3] == [boxes[0].id, "one", "running"] and len(wide) == 3
    assert narrow[:2] == [f"ID      {boxes[0].id}", "NAME    one"] and "" in narrow
    assert all(len(line) <= 30 for line in narrow)


def test_colours_are_for_terminals_that_want_them(client: Client, daemon: RunningDaemon, sysproc: Sysproc) -> None:
    client.create(name="a")
    for subcommand in ("list", "tree"):
        assert "\x1b[32m" in on_terminal(daemon, 100, subcommand, TERM="xterm")
        for unwanted in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
            assert "\x1b" not in on_terminal(daemon, 100, subcommand, **unwanted)
        assert b"\x1b" not in sysproc(subcommand).stdout


def test_a_long_command_line_is_cut_on_a_terminal_only(sysproc: Sysproc, client: Client, daemon: RunningDaemon) -> None:
    box = client.create(name="a")
    argument = "x" * 200
    with box.exec(["sh", "-c", "echo up; sleep 1000; :", argument]) as process:
        next(iter(process))
        assert argument not in on_terminal(daemon, 100, "ps", "a")
        assert argument in sysproc("ps", "a").stdout.decode()


def test_the_terminal_of_a_command_is_as_large_as_ours_also_where_its_output_is_piped(
    client: Client, daemon: RunningDaemon
) -> None:
    client.create(name="a")
    arguments = ("exec", "-t", "a", "--", "stty", "size")
    ours, theirs = terminal(columns=57)
    done = subprocess.run(
        [COMMAND, "--endpoint", daemon.endpoint, *arguments],
        stdin=theirs,
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
        env={**os.environ, "COLUMNS": "99"},
    )
    os.close(ours)
    os.close(theirs)
    assert done.stdout.split() == [b"33", b"57"]


def on_terminal(daemon: RunningDaemon, columns: int, *arguments: str, **environment: str) -> str:
    """What a subcommand shows on a terminal of this width."""
    ours, theirs = terminal(columns)
    environ = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")} | environment
    command = [COMMAND, "--endpoint", daemon.endpoint, *arguments]
    with subprocess.Popen(command, stdout=theirs, env=environ) as process:
        os.close(theirs)
        shown = b""
        while piece := read_terminal(ours):
            shown += piece
    os.close(ours)
    assert process.returncode == 0
    return shown.decode()


def terminal(columns: int) -> tuple[int, int]:
    """Both ends of a terminal of 33 rows."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 33, columns, 0, 0))
    return ours, theirs


def read_terminal(ours: int) -> bytes:
    """What is shown next; nothing at the end."""
    try:
        return os.read(ours, 1 << 16)
    except OSError:  # EIO: nobody has the other end open any more
        return b""
