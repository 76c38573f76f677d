"""The subcommand `volume check`; the others are in `sysproc_client.cli.volumes`."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from sysproc_client.cli.main import Options
from sysproc_client.cli.output import escaped, print_document
from sysproc_client.cli.passphrases import given, secret_options, with_secret
from sysproc_client.cli.several import FAILED
from sysproc_client.cli.volume_keys import PASSPHRASE

if TYPE_CHECKING:
    from sysproc_client.volume_checks import Checked


@click.command("check")
@click.argument("name")
@click.option("--owner", metavar="REF", help="The container that it belongs to. Default: oneself.")
@click.option("--repair", is_flag=True, help="Repair what is damaged, in a copy that takes its place. ext4 only.")
@secret_options()
@click.pass_obj
def check_command(options: Options, /, name: str, owner: str | None, repair: bool, **secret: Any) -> None:
    """Look whether the filesystems of a volume that nobody uses are whole; 1 is the exit status if one is not."""
    with options.connect() as client:
        volume = client.volumes.get(name, owner=owner)
        found = with_secret(
            lambda one: shown(options, volume.check(repair=repair, secret=one)), given(secret), PASSPHRASE
        )
    if options.for_programs:
        print_document(
            options.output,
            [{"filesystem": one.filesystem, "result": one.result, "output": one.output} for one in found],
        )
    if not all(one.is_whole for one in found):
        raise click.exceptions.Exit(FAILED)


def shown(options: Options, checked: "Iterable[Checked]") -> "list[Checked]":
    """All of them, each said when it is known, unless a program reads."""
    found = []
    for one in checked:
        found.append(one)
        if not options.for_programs:
            click.echo(f"{escaped(one.filesystem)}: {one.result}")
            if not one.is_whole:
                click.echo("".join(f"    {escaped(line)}\n" for line in one.output.splitlines()), nl=False)
    return found
