"""Subcommands for volumes: create, list, inspect, grow, delete; mount and umount.

A volume is named as `NAME`, or `OWNER/NAME` where it belongs to a container further down. Copies are in
`sysproc_client.cli.volume_copies`, files in `sysproc_client.cli.volume_transfers`.
"""

from typing import TYPE_CHECKING, Any

import click

from sysproc_client.cli.main import Options
from sysproc_client.cli.output import escaped, human_age, human_size, iso, print_document
from sysproc_client.cli.passphrases import given, secret_options, typed, with_secret
from sysproc_client.cli.several import each, printed_at_end
from sysproc_client.cli.tables import print_table
from sysproc_client.cli.volume_checks import check_command
from sysproc_client.cli.volume_keys import NEW, PASSPHRASE, lock_command, passwd_command
from sysproc_client.cli.volume_packing import PACKED_TYPES, compress_option, from_option, packed_volume

if TYPE_CHECKING:
    from sysproc_client.client import Client
    from sysproc_client.volumes import Volume

FS_TYPES = click.Choice(["ext4", "btrfs", "xfs"])
ALL_TYPES = click.Choice([*FS_TYPES.choices, *PACKED_TYPES])
owner_option = click.option("--owner", metavar="REF", help="The container that it belongs to. Default: oneself.")
on_destroy_option = click.option(
    "--on-destroy",
    type=click.Choice(["delete", "reparent"]),
    default="delete",
    show_default=True,
    help="What becomes of it when its owner is destroyed.",
)
overcommit_option = click.option(
    "--overcommit", is_flag=True, help="Count its size against no storage limit or free disk."
)


MOUNT_FLAGS = frozenset({"suid", "noexec"})


def mount_flags(context: click.Context, parameter: click.Parameter, value: str | None) -> frozenset[str]:
    """`suid,noexec`."""
    flags = frozenset(value.split(",")) if value else frozenset[str]()
    if unknown := sorted(flags - MOUNT_FLAGS):
        raise click.BadParameter(f"{','.join(unknown)}: there are {', '.join(sorted(MOUNT_FLAGS))}", context, parameter)
    return flags


@click.group("volume")
def volume_command() -> None:
    """Create, list, grow, copy and delete volumes: storage that outlives processes and moves between containers."""


volume_command.add_command(check_command)
volume_command.add_command(lock_command)
volume_command.add_command(passwd_command)


def parts(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[tuple[str, str, Any]]:
    """`LABEL:TYPE:SIZE`, repeated; without a size, of the last one, what is left."""
    found = []
    for value in values:
        label, colon, rest = value.partition(":")
        fstype, _, size = rest.partition(":")
        if not label or not colon or fstype not in FS_TYPES.choices:
            raise click.BadParameter(f"{value!r} is not LABEL:TYPE:SIZE, as data:ext4:1G", context, parameter)
        found.append((label, fstype, size or None))
    return found


@volume_command.command("create")
@click.argument("name")
@click.option("--size", metavar="SIZE", help="Of the whole: 1G. Not needed where each --part has its size.")
@click.option("--fs", "fstype", type=ALL_TYPES, help="Of its only filesystem. Default: ext4.")
@from_option
@compress_option
@click.option(
    "--part",
    "filesystems",
    multiple=True,
    callback=parts,
    metavar="LABEL:TYPE:SIZE",
    help="A filesystem of several; repeatable. The last may leave out its size: it takes what is left.",
)
@owner_option
@on_destroy_option
@overcommit_option
@click.option(
    "--encrypt",
    type=click.Choice(["fs", "whole"]),
    help="Each filesystem by itself, or all of the file. Without a file for it, the passphrase is asked for.",
)
@secret_options()
@click.pass_obj
def create_volume(options: Options, /, name: str, fstype: str | None, source: str | None, **wanted: Any) -> None:
    """Make a volume, formatted and empty; erofs and squashfs: read-only, of what is --from. Prints its name."""
    from sysproc_client.cli.interrupts import finishing

    if source is not None or fstype in PACKED_TYPES:
        echo_volume(options, packed_volume(options, name, fstype or "", source, wanted))
        return
    if fstype and wanted["filesystems"]:
        raise click.UsageError("--fs is for a volume of one filesystem, --part says the type of each.")
    if not wanted["size"] and not wanted["filesystems"]:
        raise click.UsageError("Say how large it shall be: --size 1G.")
    encrypt, secret = wanted.pop("encrypt") or "", given(wanted)
    if encrypt and secret is None:
        secret = typed(NEW, twice=True)
    if secret is not None and not encrypt:
        raise click.UsageError("A passphrase is for encrypted volumes: --encrypt fs, or --encrypt whole.")
    with options.connect() as client, finishing("the volume"):
        echo_volume(options, client.volumes.create(name, fs=fstype or "", encrypt=encrypt, secret=secret, **wanted))


def echo_volume(options: Options, volume: "Volume") -> None:
    """What was made."""
    if options.for_programs:
        print_document(options.output, volume_json(volume))
    else:
        click.echo(volume.name)


@volume_command.command("list")
@click.option("--owner", metavar="REF", help="Only those of this container and of all below it.")
@click.pass_obj
def list_volumes(options: Options, owner: str | None) -> None:
    """List the volumes, oldest first."""
    with options.connect() as client:
        volumes = client.volumes.list(below=owner)
    if options.for_programs:
        print_document(options.output, [volume_json(volume) for volume in volumes])
        return
    columns = ("name", "owner", "size", "filesystems", "age", "encryption", "mounted", "on destroy", "origin")
    most = len(columns) if options.wide else 5
    print_table(columns[:most], [row_of(one)[:most] for one in volumes])


def row_of(volume: "Volume") -> tuple[str, ...]:
    """A line of the list, with what only `-o wide` shows at its end."""
    shown = (volume.name, volume.owner_id, human_size(volume.size), kinds(volume), human_age(volume.created))
    where = ",".join(f"{one['container']}:{one['path']}" for one in attached_json(volume))
    return (*shown, f"{volume.encryption or '-'}{state_of_key(volume)}", where or "-", volume.on_destroy, volume.origin)


def state_of_key(volume: "Volume") -> str:
    """Of an encrypted one, unless it is open as it should be."""
    if volume.broken:
        return " (broken)"
    return "" if volume.unlocked or not volume.encryption else " (locked)"


def kinds(volume: "Volume") -> str:
    """Labels and types for people: `data:ext4`."""
    return ",".join(f"{one['label']}:{one['type']}" for one in filesystems_json(volume))


@volume_command.command("inspect")
@click.argument("name")
@owner_option
@click.pass_obj
def inspect_volume(options: Options, name: str, owner: str | None) -> None:
    """Show everything about a volume."""
    with options.connect() as client:
        volume = client.volumes.get(name, owner=owner)
    told = volume_json(volume)
    if options.for_programs:
        print_document(options.output, told)
        return
    told["size"] = human_size(volume.size)
    filesystems, attached = told.pop("filesystems"), told.pop("attached_to")
    for key, value in told.items():
        shown = {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value or ""
        click.echo(f"{key:12} {escaped(str(shown))}".rstrip())
    columns = ("label", "type", "size", "compression", "uuid", "key slots")
    print_table(columns, [tuple(shown_filesystem(one)[name] for name in columns) for one in filesystems])
    if attached:
        where = [(one["container"], one["path"], one["filesystem"], mode(one)) for one in attached]
        print_table(("mounted in", "path", "filesystem", "mode"), where)


def shown_filesystem(one: dict[str, Any]) -> dict[str, str]:
    """A filesystem for people."""
    return {
        **one,
        "size": human_size(one["size"]),
        "compression": one["compression"] or "-",
        "uuid": one["uuid"] or "-",
        "key slots": ",".join(str(slot) for slot in one["key_slots"]),
    }


@volume_command.command("grow")
@click.argument("name")
@click.option("--size", metavar="SIZE", required=True, help="What it shall have: 2G.")
@owner_option
@secret_options()
@click.pass_obj
def grow_volume(options: Options, /, name: str, size: str, owner: str | None, **secret: Any) -> None:
    """Make a volume larger; its last filesystem takes what is new."""
    with options.connect() as client:
        found = client.volumes.get(name, owner=owner)
        volume = with_secret(lambda one: found.grow(size, secret=one), given(secret), PASSPHRASE)
    if options.for_programs:
        print_document(options.output, volume_json(volume))


@volume_command.command("shrink")
@click.argument("name")
@click.option("--size", metavar="SIZE", required=True, help="What it shall have: 500M.")
@owner_option
@click.pass_obj
def shrink_volume(options: Options, name: str, size: str, owner: str | None) -> None:
    """Make a volume smaller, at the cost of its last filesystem (ext4, btrfs); refused where it holds more."""
    with options.connect() as client:
        volume = client.volumes.get(name, owner=owner).shrink(size)
    if options.for_programs:
        print_document(options.output, volume_json(volume))


@volume_command.command("attach")
@click.argument("ref")
@click.argument("volume", metavar="VOLUME[:LABEL]")
@owner_option
@click.option("--ro", "read_only", is_flag=True, help="It can be read only.")
@click.pass_obj
def attach_volume(options: Options, ref: str, volume: str, owner: str | None, read_only: bool) -> None:
    """Give a running container a volume as a raw disk; prints the device. The kernel mounts it no more from then on."""
    name, _, label = volume.partition(":")
    with options.connect() as client:
        path = volume_for(client, ref, name, owner).attach(ref, filesystem=label, read_only=read_only)
    if options.for_programs:
        print_document(options.output, {"container": ref, "path": path})
    else:
        click.echo(escaped(path))


@volume_command.command("detach")
@click.argument("ref")
@click.argument("volume", metavar="VOLUME[:LABEL]")
@owner_option
@click.option("--force", is_flag=True, help="Kills what has it open.")
@click.pass_obj
def detach_volume(options: Options, ref: str, volume: str, owner: str | None, force: bool) -> None:
    """Take a raw disk away from a container again."""
    name, _, label = volume.partition(":")
    with options.connect() as client:
        volume_for(client, ref, name, owner).detach(ref, filesystem=label, force=force)
    if options.for_programs:
        print_document(options.output, {"container": ref, "volume": name})


@volume_command.command("trust")
@click.argument("name")
@owner_option
@click.pass_obj
def trust_volume(options: Options, name: str, owner: str | None) -> None:
    """Vouch for what is in a volume, wherever it comes from: then the kernel mounts it. For the host only."""
    with options.connect() as client:
        volume = client.volumes.get(name, owner=owner).trust()
    if options.for_programs:
        print_document(options.output, volume_json(volume))


@volume_command.command("delete")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@owner_option
@click.pass_obj
def delete_volumes(options: Options, names: tuple[str, ...], owner: str | None) -> None:
    """Delete volumes and everything in them; refused while they are in use."""
    deleted: list[str] = []

    def delete(name: str) -> None:
        client.volumes.get(name, owner=owner).delete()
        deleted.append(name)

    with options.connect() as client, printed_at_end(options, deleted):
        each(names, delete)


@click.command("mount")
@click.argument("ref")
@click.argument("volume", metavar="VOLUME[:LABEL]")
@click.argument("path")
@owner_option
@click.option("--ro", "read_only", is_flag=True, help="Read-only; in another container than its owner, without ids.")
@click.option("--exclusive", is_flag=True, help="Nobody else mounts it meanwhile; refused if somebody has.")
@click.option("--direct-io", is_flag=True, help="Past the host's page cache; refused if it is mounted without.")
@click.option("-o", "flags", metavar="FLAGS", callback=mount_flags, help="suid (set-uid programs count), noexec.")
@secret_options()
@click.pass_obj
def mount_command(
    options: Options,
    /,
    ref: str,
    volume: str,
    path: str,
    owner: str | None,
    flags: frozenset[str],
    **asked: Any,
) -> None:
    """Mount a volume, or one of its filesystems, in a running container: its owner, or one below that.

    A name alone is that of the container's own volume; if it has none of that name, of the caller's. The passphrase of
    an encrypted one is needed unless it is mounted already.
    """
    wish = {word: asked.pop(word) for word in ("read_only", "exclusive", "direct_io")}
    wish |= {"suid": "suid" in flags, "noexec": "noexec" in flags}
    shown = given(asked)
    name, _, label = volume.partition(":")
    with options.connect() as client:
        found = volume_for(client, ref, name, owner)
        with_secret(lambda one: found.mount(ref, path, filesystem=label, secret=one, **wish), shown, PASSPHRASE)
        if options.for_programs:
            print_document(options.output, volume_json(found.refresh()))


def volume_for(client: "Client", ref: str, name: str, owner: str | None) -> "Volume":
    """The volume that is meant by a name beside a container."""
    from sysproc_client import NotFound

    if owner is None and "/" not in name:
        try:
            return client.volumes.get(name, owner=ref)
        except NotFound as missing:
            if missing.reason != "VOLUME_NOT_FOUND":
                raise
    return client.volumes.get(name, owner=owner)


@click.command("umount")
@click.argument("ref")
@click.argument("path")
@click.option("--force", is_flag=True, help="From wherever it is mounted there; kills what holds a file of it.")
@click.pass_obj
def umount_command(options: Options, ref: str, path: str, force: bool) -> None:
    """Take the volume at a path out of a container again."""
    with options.connect() as client:
        client.volumes.unmount(ref, path, force=force)
    if options.for_programs:
        print_document(options.output, {"container": ref, "path": path})


def volume_json(volume: "Volume") -> dict[str, Any]:
    """A volume for programs."""
    from sysproc_client.container import as_datetime

    return {
        "name": volume.name,
        "owner": volume.owner_id,
        "size": volume.size,
        "encrypted": bool(volume.encryption),
        "encryption": volume.encryption,
        "unlocked": volume.unlocked,
        "broken": volume.broken,
        "filesystems": filesystems_json(volume),
        "attached_to": attached_json(volume),
        "on_destroy": volume.on_destroy,
        "snapshot_of": "" if volume.snapshot_of is None else volume.snapshot_of.name,
        "snapshot_time": None if volume.snapshot_of is None else iso(as_datetime(volume.snapshot_of.time)),
        "origin": volume.origin,
        "created": iso(volume.created),
    }


def mode(attached: dict[str, Any]) -> str:
    """How it is mounted, for people: `rw,exclusive`."""
    more = [name for name in ("exclusive", "direct_io", "raw") if attached[name]]
    return ",".join(["ro" if attached["read_only"] else "rw", *more])


def attached_json(volume: "Volume") -> list[dict[str, Any]]:
    """Where it is mounted."""
    from sysproc_client._core.values import to_hex

    return [
        {
            "container": to_hex(one.container_id),
            "path": one.path.decode(errors="backslashreplace"),
            "filesystem": one.filesystem,
            "read_only": one.read_only,
            "exclusive": one.exclusive,
            "direct_io": one.direct_io,
            "raw": one.raw,
        }
        for one in volume.attached_to
    ]


def filesystems_json(volume: "Volume") -> list[dict[str, Any]]:
    """What is in it, in order."""
    from sysproc_client.volumes import TYPE_NAMES

    return [
        {
            "label": one.label,
            "type": TYPE_NAMES.get(one.type, "unknown"),
            "size": one.size_bytes,
            "uuid": one.uuid,
            "encrypted": one.encrypted,
            "key_slots": list(one.key_slots),
            "compression": one.compression,
        }
        for one in volume.filesystems
    ]


# These add themselves to the group above.
import sysproc_client.cli.volume_copies  # noqa: E402 - after what it imports
import sysproc_client.cli.volume_transfers  # noqa: E402, F401 - after what it imports
