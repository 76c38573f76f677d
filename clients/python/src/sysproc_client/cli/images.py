"""Subcommands for images: import, list, inspect, delete."""

import signal
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from sysproc_client.cli.interrupts import SIGNALLED
from sysproc_client.cli.main import Options
from sysproc_client.cli.output import escaped, human_age, human_size, iso, print_document
from sysproc_client.cli.progress import of_entries, shown_progress, size_of
from sysproc_client.cli.several import each, printed_at_end
from sysproc_client.cli.tables import print_table

if TYPE_CHECKING:
    from nightos.sysproc.v1.image_service_pb2 import Image


@click.group("image")
def image_command() -> None:
    """Import, list, inspect and delete images: what the roots of containers are made from."""


@image_command.command("import")
@click.argument("name")
@click.argument("source")
@click.option("--replace", is_flag=True, help="The name may change to this content.")
@click.pass_obj
def import_command(options: Options, name: str, source: str, replace: bool) -> None:
    """Import a folder or a tar (plain, gzip, xz, zstd; `-` is standard input) as the image NAME."""
    what = sys.stdin.buffer if source == "-" else source
    try:
        with options.connect() as client, shown_progress(size_of(source)) as progress:
            imported = client.images.import_(name, what, replace=replace, progress=of_entries(progress))
    except KeyboardInterrupt:
        click.echo("sysproc: Interrupted: nothing was imported.", err=True)
        raise click.exceptions.Exit(SIGNALLED + signal.SIGINT) from None
    for warning in warnings_of(imported.image):
        click.echo(f"sysproc: {escaped(warning)}", err=True)
    if options.for_programs:
        print_document(options.output, image_json(imported.image))
        return
    click.echo(imported.image.digest.hex())


@image_command.command("list")
@click.pass_obj
def list_images(options: Options) -> None:
    """List the images."""
    with options.connect() as client:
        images = client.images.list()
    if options.for_programs:
        print_document(options.output, [image_json(image) for image in images])
        return
    rows = [
        (
            image.name,
            image.digest.hex()[: None if options.wide else 12],
            human_size(image.content_bytes),
            human_size(image.stored_bytes),
            str(image.containers),
            human_age(_created(image)),
        )
        for image in images
    ]
    print_table(("name", "digest", "content", "stored", "containers", "age"), rows)


@image_command.command("inspect")
@click.argument("name")
@click.pass_obj
def inspect_image(options: Options, name: str) -> None:
    """Show everything about an image: its sizes, what of its tar is not in it, which containers were made from it."""
    with options.connect() as client:
        found = client.images.get(name)
    image, users = found.image, [{"id": one.container_id, "name": one.container_name} for one in found.users]
    if options.for_programs:
        print_document(options.output, {**image_json(image), "used_by": users})
        return
    told = image_json(image)
    for key in ("content_bytes", "stored_bytes", "root_bytes"):
        told[key.removesuffix("_bytes")] = human_size(told.pop(key))
    told["created"] = f"{told['created']} ({human_age(_created(image))} ago)"
    for key in ("name", "digest", "created", "content", "stored", "root", "entries", "containers"):
        click.echo(f"{key:12} {escaped(str('' if told[key] is None else told[key]))}".rstrip())
    for warning in told["warnings"]:
        click.echo(f"{'warning':12} {escaped(warning)}")
    if users:
        print_table(("used by", "name"), [(one["id"], one["name"]) for one in users])


def warnings_of(image: "Image") -> list[str]:
    """What of its tar an image has not, in words."""
    found = []
    if count := image.skipped_devices:
        found.append(f"{count} device node{plural(count, ' was', 's were')} left out: containers have their own.")
    if attributes := image.skipped_attributes:
        names = ", ".join(f"{name} (on {count})" for name, count in sorted(attributes.items()))
        found.append(f"Extended attributes that no container may have were left out: {names}.")
    return found


def plural(count: int, one: str, more: str) -> str:
    """The word for so many."""
    return one if count == 1 else more


def _created(image: "Image") -> datetime:
    from sysproc_client.container import as_datetime

    return as_datetime(image.create_time)


def image_json(image: "Image") -> dict[str, Any]:
    """An image for programs."""
    return {
        "name": image.name,
        "digest": image.digest.hex(),
        "content_bytes": image.content_bytes,
        "stored_bytes": image.stored_bytes,
        "root_bytes": image.root_bytes,
        "containers": image.containers,
        "created": iso(_created(image)),
        "entries": image.entries if image.HasField("entries") else None,
        "skipped_devices": image.skipped_devices,
        "skipped_attributes": dict(image.skipped_attributes),
        "warnings": warnings_of(image),
    }


@image_command.command("delete")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.pass_obj
def delete_images(options: Options, names: tuple[str, ...]) -> None:
    """Delete images; refused while containers made from them are there."""
    deleted: list[str] = []

    def delete(name: str) -> None:
        client.images.delete(name)
        deleted.append(name)

    with options.connect() as client, printed_at_end(options, deleted):
        each(names, delete)
