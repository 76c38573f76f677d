"""What is said of a command line that makes no sense: what is wrong with it, a guess, where to read on.

Errors of the service are told in `sysproc_client.cli.main`.
"""

from collections.abc import Iterable

import click

PREFIX = "sysproc: "
# Words that people try first, and what they mean here.
ELSEWHERE = {
    "help": "--help",
    "ls": "list",
    "rm": "destroy",
    "delete": "destroy",
    "kill": "destroy",
    "show": "inspect",
    "top": "ps",
    "shell": "exec",
    "enter": "exec",
    "images": "image list",
    "volumes": "volume list",
    "import": "image import",
    "launch": "create",
    "pause": "freeze",
    "unpause": "thaw",
    "status": "doctor",
}


def tell_usage(error: click.UsageError) -> None:
    """In two lines, as every other error is told."""
    click.echo(f"{PREFIX}{sentence(error.format_message())}", err=True)
    if error.ctx is not None:
        usage = " ".join(error.ctx.get_usage().split()).removeprefix("Usage: ")
        click.echo(f"{' ' * len(PREFIX)}{usage}; `{error.ctx.command_path} --help` says more.", err=True)


def sentence(message: str) -> str:
    """With its full stop."""
    return message if message.endswith((".", "?", "!", ")")) else f"{message}."


def no_such_command(word: str, known: Iterable[str]) -> str:
    """What is said of a mistyped subcommand, or of one that is another tool's."""
    import difflib

    close = [ELSEWHERE[word]] if word in ELSEWHERE else difflib.get_close_matches(word, [*known], 1)
    guess = f"Did you mean `sysproc {close[0]}`?" if close else "`sysproc --help` lists them."
    return f"There is no command `{word}`. {guess}"
