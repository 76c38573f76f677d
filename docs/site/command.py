"""The reference of the commands, of the same that `--help` and the man pages are made of: click's commands, EXAMPLES.

Roff is written by `scripts/make-man-pages`.
"""

import re
from collections.abc import Iterator

import click

from docs.site.comments import escaped
from sysproc.server.main import main as sysprocd
from sysproc_client.cli.examples import EXAMPLES
from sysproc_client.cli.main import cli

HEAD = """# The commands

Each with its options and examples, as `--help` and the man pages have them. Every command takes `--help`, and
those that print something `-o`, before or behind the command's name.
"""


def page() -> str:
    """All of `sysproc`, and `sysprocd`."""
    contexts = [*walk(click.Context(cli, info_name="sysproc")), click.Context(sysprocd, info_name="sysprocd")]
    return "\n".join([HEAD, *(line for context in contexts for line in (*section(context), ""))])


def walk(context: click.Context) -> Iterator[click.Context]:
    """A command and all below it."""
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            if command := context.command.get_command(context, name):
                yield from walk(click.Context(command, info_name=name, parent=context))


def section(context: click.Context) -> Iterator[str]:
    """One command."""
    command = context.command
    name = context.command_path
    yield from (anchor(name), f"## {name}", "", "```text", " ".join([name, *command.collect_usage_pieces(context)]))
    yield from ("```", "", *described(command.help or ""))
    if isinstance(command, click.Group):
        for word in command.list_commands(context):
            below = command.get_command(context, word)
            assert below is not None
            yield f"- [`{name} {word}`](#{target(f'{name} {word}')}): {escaped(below.get_short_help_str(200))}"
        yield ""
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record and isinstance(parameter, click.Option) and parameter.name != "help":
            yield from (f"`{record[0]}`", f": {with_code(record[1])}", "")
    if lines := EXAMPLES.get(name.removeprefix("sysproc ")):
        yield from ("```shell", *lines, "```")


def target(name: str) -> str:
    """The anchor of a command."""
    return f"command-{name.replace(' ', '-')}"


def anchor(name: str) -> str:
    """The line that makes it."""
    return f"({target(name)})="


def described(text: str) -> Iterator[str]:
    """Paragraphs of help, with click's marks resolved: what stands behind \\b keeps its lines."""
    for part in re.split(r"\n\s*\n", text.strip()):
        if part.startswith("\b"):
            yield from ("```text", *part.strip("\b\n").splitlines(), "```", "")
        elif part:
            yield from (with_code(" ".join(part.split())), "")


def with_code(text: str) -> str:
    """Escaped but for what is in backticks."""
    pieces = re.split(r"(`[^`]+`)", text)
    return "".join(piece if number % 2 else escaped(piece) for number, piece in enumerate(pieces))
