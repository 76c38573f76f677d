"""Passphrases and key files on the command line: from a file, from standard input, or typed; never an argument.

    --passphrase-file FILE   a text; the line end behind it is cut
    --key-file FILE          every byte counts
    neither, on a terminal   asked for, unseen; a new one twice

`-` is standard input. What they are for is in `sysproc_client.cli.volumes` and `sysproc_client.cli.volume_keys`.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

T = TypeVar("T")
Command = Callable[..., Any]
# Options of one secret, as click gives them; the names are those of `secret_options`.
Given = dict[str, Any]


def secret_options(prefix: str = "", what: str = "Its passphrase") -> Callable[[Command], Command]:
    """`--passphrase-file`, `--key-file`; with a prefix those of another one."""
    dashed, name = (f"{prefix}-", f"{prefix}_") if prefix else ("", "")

    def options(command: Command) -> Command:
        text = click.option(
            f"--{dashed}passphrase-file",
            f"{name}passphrase_file",
            metavar="FILE",
            help=f"{what} is in this file, without the line end behind it; `-` is standard input.",
        )
        raw = click.option(
            f"--{dashed}key-file",
            f"{name}key_file",
            metavar="FILE",
            help="This file, byte by byte, instead of a passphrase; `-` is standard input.",
        )
        return text(raw(command))

    return options


def given(wanted: Given, prefix: str = "") -> bytes | None:
    """What was given by options, which are taken out; None if nothing was."""
    name = f"{prefix}_" if prefix else ""
    text, raw = wanted.pop(f"{name}passphrase_file"), wanted.pop(f"{name}key_file")
    if text is not None and raw is not None:
        raise click.UsageError("A passphrase and a key file at once: give one of them.")
    if text is not None:
        return without_line_end(read(text))
    return None if raw is None else read(raw)


def read(file: str) -> bytes:
    """All of it."""
    return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()


def without_line_end(text: bytes) -> bytes:
    """Cut one, as an editor or `echo` has written it."""
    return text.removesuffix(b"\n").removesuffix(b"\r") if text.endswith(b"\n") else text


def typed(what: str, *, twice: bool = False) -> bytes:
    """Asked for on the terminal. UsageError where there is none."""
    if not sys.stdin.isatty():
        raise click.UsageError(f"{what} is needed: --passphrase-file FILE, or `-` for standard input.")
    text: str = click.prompt(what, hide_input=True, confirmation_prompt=twice, err=True)
    return text.encode()


def with_secret(call: Callable[[bytes | None], T], secret: bytes | None, what: str) -> T:
    """Call; where only a secret was missing, ask for it on the terminal and call again."""
    from sysproc_client import FailedPrecondition

    try:
        return call(secret)
    except FailedPrecondition as locked:
        if secret is not None or locked.reason != "VOLUME_LOCKED" or not sys.stdin.isatty():
            raise
    return call(typed(what))
