"""What is done with each of several that are named: one that fails does not keep the others from it.

What is done is said in the modules of the subcommands.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from sysproc_client.cli.main import Options, tell
from sysproc_client.cli.output import print_document

FAILED = 1


def each(named: Sequence[str], act: Callable[[str], object]) -> None:
    """Do it with each. What fails is told at once; the exit code is 1 then, after the last one."""
    from sysproc_client._core.errors import SysprocError

    failed = False
    for one in named:
        try:
            act(one)
        except SysprocError as error:
            if len(named) == 1 or error.reason == "UNREACHABLE":
                raise
            failed = True
            tell(error, FAILED, f"{one}: ")
    if failed:
        raise click.exceptions.Exit(FAILED)


@contextmanager
def printed_at_end(options: Options, results: Sequence[Any]) -> Iterator[None]:
    """With `-o json`, print what there is of the results, whatever happens."""
    try:
        yield
    finally:
        if options.for_programs:
            print_document(options.output, list(results))
