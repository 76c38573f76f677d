"""The subcommand `volume check`; the others are in `sysproc_client.cli.volumes`."""

import click

from sysproc_client.cli.main import Options
from sysproc_client.cli.output import escaped, print_document
from sysproc_client.cli.several import FAILED


@click.command("check")
@click.argument("name")
@click.option("--owner", metavar="REF", help="The container that it belongs to. Default: oneself.")
@click.option("--repair", is_flag=True, help="Repair what is damaged, in a copy that takes its place. ext4 only.")
@click.pass_obj
def check_command(options: Options, name: str, owner: str | None, repair: bool) -> None:
    """Look whether the filesystems of a volume that nobody uses are whole; 1 is the exit status if one is not."""
    with options.connect() as client:
        found = []
        for one in client.volumes.get(name, owner=owner).check(repair=repair):
            found.append(one)
            if not options.for_programs:
                click.echo(f"{escaped(one.filesystem)}: {one.result}")
                if not one.is_whole:
                    click.echo("".join(f"    {escaped(line)}\n" for line in one.output.splitlines()), nl=False)
    if options.for_programs:
        print_document(
            options.output,
            [{"filesystem": one.filesystem, "result": one.result, "output": one.output} for one in found],
        )
    if not all(one.is_whole for one in found):
        raise click.exceptions.Exit(FAILED)
