"""Subcommands for images: import, list, delete."""

import sys
from datetime import datetime
from typing import TYPE_CHECKING

import click

from sysproc_client.cli.main import Options
from sysproc_client.cli.output import human_age, human_size, iso, print_document
from sysproc_client.cli.progress import of_entries, shown_progress, size_of
from sysproc_client.cli.several import each, printed_at_end
from sysproc_client.cli.tables import print_table

if TYPE_CHECKING:
    from nightos.sysproc.v1.image_service_pb2 import Image


@click.group("image")
def image_command() -> None:
    """Import, list and delete images: what the roots of containers are made from."""


@image_command.command("import")
@click.argument("name")
@click.argument("source")
@click.option("--replace", is_flag=True, help="The name may change to this content.")
@click.pass_obj
def import_command(options: Options, name: str, source: str, replace: bool) -> None:
    """Import a folder or a tar (plain, gzip, xz, zstd; `-` is standard input) as the image NAME."""
    with options.connect() as client, shown_progress(size_of(source)) as progress:
        what = sys.stdin.buffer if source == "-" else source
        imported = client.images.import_(name, what, replace=replace, progress=of_entries(progress))
    if imported.skipped_devices:
        click.echo(f"{imported.skipped_devices} device nodes were left out: containers have their own.", err=True)
    if options.for_programs:
        print_document(options.output, {**image_json(imported.image), "skipped_devices": imported.skipped_devices})
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


def _created(image: "Image") -> datetime:
    from sysproc_client.container import as_datetime

    return as_datetime(image.create_time)


def image_json(image: "Image") -> dict[str, object]:
    """An image for programs."""
    return {
        "name": image.name,
        "digest": image.digest.hex(),
        "content_bytes": image.content_bytes,
        "stored_bytes": image.stored_bytes,
        "root_bytes": image.root_bytes,
        "containers": image.containers,
        "created": iso(_created(image)),
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
