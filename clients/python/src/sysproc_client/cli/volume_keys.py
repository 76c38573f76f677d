"""Subcommands for encrypted volumes: lock, passwd. The others are in `sysproc_client.cli.volumes`."""

from typing import TYPE_CHECKING, Any

import click

from sysproc_client.cli.main import Options
from sysproc_client.cli.output import print_document
from sysproc_client.cli.passphrases import given, secret_options, typed

if TYPE_CHECKING:
    from sysproc_client.volumes import Volume

PASSPHRASE, NEW = "Passphrase", "New passphrase"


@click.command("lock")
@click.argument("name")
@click.option("--owner", metavar="REF", help="The container that it belongs to. Default: oneself.")
@click.option("--force", is_flag=True, help="Unmount it everywhere first, and end what uses it.")
@click.pass_obj
def lock_command(options: Options, name: str, owner: str | None, force: bool) -> None:
    """Lock an encrypted volume: mounted nowhere, its key in no memory. Refused while it is in use."""
    with options.connect() as client:
        volume = client.volumes.get(name, owner=owner)
        volume.lock(force=force)
        if options.for_programs:
            print_document(options.output, {"name": volume.name, "owner": volume.owner_id, "unlocked": False})


@click.command("passwd")
@click.argument("name")
@click.option("--owner", metavar="REF", help="The container that it belongs to. Default: oneself.")
@click.option("--add", is_flag=True, help="Add the new one; the old one stays.")
@click.option("--remove", is_flag=True, help="Remove this one, or that of --slot.")
@click.option("--slot", type=click.IntRange(0, 31), help="With --remove: the number of the key that goes.")
@secret_options()
@secret_options("new", "The new passphrase")
@click.pass_obj
def passwd_command(options: Options, /, name: str, owner: str | None, slot: int | None, **wanted: Any) -> None:
    """Change, add or remove a passphrase or key file of an encrypted volume; what is in it is not written anew."""
    add, remove = wanted.pop("add"), wanted.pop("remove")
    check(add, remove, slot, wanted)
    secret = given(wanted) or typed(PASSPHRASE)
    new = given(wanted, "new")
    if not remove and new is None:
        new = typed(NEW, twice=True)
    with options.connect() as client:
        volume: Volume = client.volumes.get(name, owner=owner)
        if remove:
            volume.remove_key(secret, slot=slot)
        elif add:
            volume.add_key(secret, new)
        else:
            volume.change_key(secret, new)
        if options.for_programs:
            print_document(
                options.output, {"name": volume.name, "owner": volume.owner_id, "key_slots": volume.key_slots}
            )


def check(add: bool, remove: bool, slot: int | None, wanted: dict[str, Any]) -> None:
    """What makes no sense together."""
    if add and remove:
        raise click.UsageError("--add and --remove at once: do one after the other.")
    if slot is not None and not remove:
        raise click.UsageError("--slot says which key goes: it is for --remove.")
    if remove and (wanted["new_passphrase_file"] or wanted["new_key_file"]):
        raise click.UsageError("With --remove there is no new one.")
    if list(wanted.values()).count("-") > 1:
        raise click.UsageError("Only one of them can come from standard input.")
