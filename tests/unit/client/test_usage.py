"""What the `sysproc` command says of a command line that makes no sense."""

import subprocess
import sys
from pathlib import Path

import pytest

from sysproc_client.cli.main import COMMANDS
from sysproc_client.cli.usage import ELSEWHERE

COMMAND = str(Path(sys.executable).with_name("sysproc"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("lst", ["`lst`", "`sysproc list`"]),
        ("rm web", ["`sysproc destroy`"]),
        ("help", ["`sysproc --help`"]),
        ("qqqqqq", ["`sysproc --help` lists them"]),
        ("create --memry 5", ["--memory", "`sysproc create --help`"]),
        ("exec", ["REF", "sysproc exec [OPTIONS] REF -- CMD...", "`sysproc exec --help`"]),
        ("volume lst", ["'list'", "`sysproc volume --help`"]),
        ("volume create x --fs ext5", ["ext5", "ext4, btrfs, xfs", "`sysproc volume create --help`"]),
        ("-o jsn list", ["jsn", "json"]),
        ("update web", ["Nothing to change"]),
    ],
)
def test_it_is_said_in_at_most_two_lines_with_what_to_do(line: str, words: list[str]) -> None:
    done = subprocess.run([COMMAND, *line.split()], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == (125 if line == "exec" else 2) and done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) <= 2 and lines[0].startswith("sysproc: ")
    assert all(word in done.stderr.replace("'ext4', 'btrfs', 'xfs'", "ext4, btrfs, xfs") for word in words), done.stderr


def test_what_other_tools_call_it_leads_to_what_there_is() -> None:
    assert {meant.split()[0] for meant in ELSEWHERE.values()} <= COMMANDS.keys() | {"--help"}
    assert not ELSEWHERE.keys() & COMMANDS.keys()
