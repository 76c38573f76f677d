"""What pages show of a terminal: blocks of commands with what they print, run in a shell and compared.

    ```console
    # sysproc create --name web          `# ` or `$ `: a command, `> `: goes on
    4a1dc08f5e19b2c7                     else: what it prints, both streams
    ```

In what is printed `…` stands for anything within a line, and on a line of its own for any lines. Ids, ages and numbers
of loop devices are others each time; how many spaces are between two words is nothing that counts.
"""

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PROMPTS = ("# ", "$ ")
# Ids, ages, loop devices.
_OTHERS_EACH_TIME = ("[0-9a-f]{16}", "[0-9]+s", "/dev/loop[0-9]+")
# Between what two commands print: nothing that a command of ours prints.
_MARK = "\x1d"


@dataclass(frozen=True)
class Command:
    """A command, where it stands in its page, and what the page says that it prints."""

    line: int
    text: str
    printed: str


def commands_of(page: str) -> list[Command]:
    """All commands of a page's console blocks, in order."""
    found: list[Command] = []
    shown = False
    for number, line in enumerate(page.splitlines(), start=1):
        if line.startswith("```"):
            shown = line == "```console"
        elif shown and line.startswith(_PROMPTS):
            found.append(Command(number, line[2:], ""))
        elif shown and line.startswith("> "):
            last = found.pop()
            found.append(Command(last.line, f"{last.text}\n{line[2:]}", last.printed))
        elif shown:
            last = found.pop()
            found.append(Command(last.line, last.text, f"{last.printed}{line}\n"))
    return found


def printed_by(commands: Sequence[Command], *, directory: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """What each of them prints, run one after the other in one shell."""
    script = "".join(f"{command.text}\nprintf '{_MARK}'\n" for command in commands)
    done = subprocess.run(
        ["bash", "-c", f"exec 2>&1\n{script}"],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=False,
        timeout=150,
    )
    yield from done.stdout.decode(errors="backslashreplace").split(_MARK)[: len(commands)]


def is_like(said: str, shown: str) -> bool:
    """Whether a command has printed what the page shows."""
    pattern = "".join(r"(?:.*\n)*" if line == "…" else f"{line_pattern(line)}\n" for line in shown.splitlines())
    lines = "".join(f"{' '.join(line.split())}\n" for line in said.splitlines())
    return re.fullmatch(pattern, lines) is not None


def line_pattern(line: str) -> str:
    """What matches a line like this one, its words one space apart."""
    return " ".join(word_pattern(word) for word in line.split())


def word_pattern(word: str) -> str:
    """What matches a word like this one; one with `…` in it may be several words."""
    for like in _OTHERS_EACH_TIME:
        if re.fullmatch(like, word):
            return like
    return ".*".join(re.escape(part) for part in word.split("…"))
