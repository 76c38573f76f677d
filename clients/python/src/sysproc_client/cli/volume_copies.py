"""Subcommands that copy volumes: clone, snapshot.

A copy is named as a volume is: `NAME`, then its owner is that of the original, or `OWNER/NAME`. Those for volumes
themselves are in `sysproc_client.cli.volumes`, to whose group these add themselves.
"""

from typing import Any

import click

from sysproc_client.cli.main import Options
from sysproc_client.cli.volumes import echo_volume, on_destroy_option, overcommit_option, owner_option, volume_command


@volume_command.command("clone")
@click.argument("name")
@click.argument("copy", metavar="NEW")
@owner_option
@on_destroy_option
@overcommit_option
@click.pass_obj
def clone_volume(options: Options, /, name: str, copy: str, **wanted: Any) -> None:
    """Make another volume, NEW, of what is in a volume now, also while it is mounted; prints its name."""
    copy_volume(options, name, copy, "clone", **wanted)


@volume_command.command("snapshot")
@click.argument("name")
@click.argument("copy", metavar="NEW")
@owner_option
@on_destroy_option
@overcommit_option
@click.pass_obj
def snapshot_volume(options: Options, /, name: str, copy: str, **wanted: Any) -> None:
    """Keep what is in a volume now as another one, NEW, that can only be read; prints its name."""
    copy_volume(options, name, copy, "snapshot", **wanted)


def copy_volume(options: Options, name: str, copy: str, verb: str, owner: str | None, **wanted: Any) -> None:
    """A clone or a snapshot."""
    from sysproc_client.cli.interrupts import finishing

    above, _, own = copy.rpartition("/")
    with options.connect() as client:
        volume = client.volumes.get(name, owner=owner)
        with finishing(f"the {verb}"):
            echo_volume(options, getattr(volume, verb)(own, owner=above or None, **wanted))
