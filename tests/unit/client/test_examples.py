"""Each subcommand has examples, which are lines that it takes; `--help` and the man pages show them."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from sysproc.server.main import main as sysprocd
from sysproc.server.manual import EPILOG
from sysproc_client.cli.examples import EXAMPLES
from sysproc_client.cli.main import COMMANDS, Options, cli
from sysproc_client.cli.manual import TOP

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "scripts" / "make-man-pages"
# What begins another command of the same line, or a file.
APART = {"|", ">", "<", ";", "&&", "<("}


def subcommands() -> set[str]:
    found = set()
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        found |= {f"{name} {word}" for word in command.commands} if isinstance(command, click.Group) else {name}
    return found


def lines_of_ours(line: str) -> list[list[str]]:
    """The parts of a line of the shell that call sysproc; each without its first word."""
    lexer = shlex.shlex(line.replace("<(", "; ").replace(")", ""), posix=True, punctuation_chars="|<>;&")
    lexer.whitespace_split = True
    parts: list[list[str]] = [[]]
    for word in lexer:
        if word in APART:
            parts.append([])
        else:
            parts[-1].append(word)
    return [part[part.index("sysproc") + 1 :] for part in parts if "sysproc" in part]


def test_every_subcommand_has_an_example_and_every_example_a_subcommand() -> None:
    assert EXAMPLES.keys() == subcommands()


def take(words: list[str]) -> None:
    """As the command line does, less what it does then. click's errors: what is wrong with it."""
    context = cli.make_context("sysproc", words)
    context.obj = Options()
    while isinstance(group := context.command, click.Group):
        word, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
        assert command is not None
        context = command.make_context(word, rest, parent=context)


@pytest.mark.parametrize(("name", "line"), [(name, line) for name, lines in EXAMPLES.items() for line in lines])
def test_an_example_is_taken_as_it_is_written(name: str, line: str) -> None:
    ours = lines_of_ours(line)
    assert name in [" ".join(words[: len(name.split())]) for words in ours]
    for words in ours:
        take(words)


@pytest.mark.parametrize("page", ["COMING_FROM.md", "OPERATING.md"])
def test_what_a_page_calls_a_command_is_one(page: str) -> None:
    text = (ROOT / "docs" / page).read_text().replace("\\|", "|")
    quoted = re.findall(r"`((?:[^`|\n]*\| )?sysproc [^`]+)`", text)
    lines = [words for text in quoted for words in lines_of_ours(text)]
    assert lines
    for words in lines:
        take(words)


def test_help_ends_with_the_examples() -> None:
    command = cli.get_command(click.Context(cli), "mount")
    assert command is not None
    shown = command.get_help(click.Context(command, info_name="mount"))
    assert shown.rstrip().endswith(f"Examples:\n    {EXAMPLES['mount'][0]}\n    {EXAMPLES['mount'][1]}")


def test_a_page_has_every_section_and_every_word_that_help_ends_with(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(SCRIPT), str(tmp_path)], check=True, timeout=120)
    exec_command = cli.get_command(click.Context(cli), "exec")
    assert exec_command is not None
    sections = {
        "sysproc.1": (cli, ["EXIT STATUS", "ENVIRONMENT", "FILES", "EXAMPLES"]),
        "sysprocd.8": (sysprocd, ["EXIT STATUS", "ENVIRONMENT", "FILES", "EXAMPLES"]),
        "sysproc-exec.1": (exec_command, ["EXIT STATUS", "EXAMPLES"]),
    }
    for name, (command, titles) in sections.items():
        text = (tmp_path / name).read_text().replace("\\-", "-").replace("\\&", "")
        assert re.findall(r"^\.SH (.+)$", text, re.MULTILINE)[-1 - len(titles) :] == [*titles, "SEE ALSO"]
        words = re.sub(r"^\.\w+", "", text, flags=re.MULTILINE).split()
        told = [word for word in (command.epilog or "").replace("\b", "").split() if not word.endswith(":")]
        assert [word for word in told if word not in words and word.upper() not in words] == []


@pytest.mark.parametrize("line", [line.strip() for line in EPILOG.split("Examples:")[1].strip().splitlines()])
def test_an_example_of_the_daemon_is_taken_as_it_is_written(line: str) -> None:
    sysprocd.make_context("sysprocd", shlex.split(line)[1:])


@pytest.mark.parametrize("line", [line.strip() for line in TOP.split("Examples:")[1].strip().splitlines()])
def test_an_example_of_the_whole_is_taken_as_it_is_written(line: str) -> None:
    take(shlex.split(line)[1:])


def test_man_pages_are_made_of_the_same_and_roff_has_nothing_against_them(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(SCRIPT), str(tmp_path)], check=True, timeout=120)
    pages = {path.name for path in tmp_path.iterdir()}
    assert pages >= {"sysproc.1", "sysprocd.8", *(f"sysproc-{name.replace(' ', '-')}.1" for name in EXAMPLES)}
    text = (tmp_path / "sysproc-mount.1").read_text().replace("\\-", "-")
    assert all(line in text for line in EXAMPLES["mount"])
    if not shutil.which("groff"):
        pytest.skip("groff is not installed")
    for page in sorted(pages):
        call = ["groff", "-man", "-Tutf8", "-ww", "-z", str(tmp_path / page)]
        done = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, ""), page
