"""Subcommands that carry volumes to files and back: export, import.

They add themselves to the group in `sysproc_client.cli.volumes`.
"""

import sys
from typing import Any

import click

from sysproc_client.cli.main import Options
from sysproc_client.cli.output import print_document
from sysproc_client.cli.progress import shown_progress
from sysproc_client.cli.volumes import on_destroy_option, overcommit_option, owner_option, volume_command, volume_json


@volume_command.command("export")
@click.argument("name")
@click.argument("file")
@owner_option
@click.option("--zstd/--raw", "zstd", default=None, help="Packed or not. Default: as FILE ends in `.zst` or not.")
@click.option("--replace", is_flag=True, help="FILE may be there already.")
@click.pass_obj
def export_volume(options: Options, name: str, file: str, owner: str | None, zstd: bool | None, replace: bool) -> None:
    """Write what is in a volume now into FILE, also while it is mounted: a disk image; packed, if it ends in `.zst`.

    `-` is standard output. A disk image is sparse; `zstd -d` unpacks the other.
    """
    with options.connect() as client, shown_progress() as progress:
        volume = client.volumes.get(name, owner=owner)
        if file == "-":
            digest = volume.export_to(sys.stdout.buffer, zstd=zstd, progress=progress)
            sys.stdout.buffer.flush()
        else:
            digest = volume.export_to(file, zstd=zstd, replace=replace, progress=progress)
    if options.for_programs and file != "-":
        print_document(options.output, {"name": volume.name, "file": file, "size": volume.size, "digest": digest.hex()})


@volume_command.command("import")
@click.argument("name")
@click.argument("file")
@owner_option
@on_destroy_option
@overcommit_option
@click.option("--trust", "trusted", is_flag=True, help="The host's kernel may mount what is in it. For the host only.")
@click.option("--as-is", is_flag=True, help="Keep its bytes, for a raw disk; it is not mounted.")
@click.pass_obj
def import_volume(options: Options, /, name: str, file: str, **wanted: Any) -> None:
    """Make a volume of FILE: a disk image, one filesystem, or either packed by zstd; prints its name.

    What is in it (ext2 to ext4, erofs) is copied into filesystems of the service's own, so that any container may have
    it: nothing that somebody has made to mislead a kernel gets there. `-` is standard input.
    """
    left_out: list[int] = []
    with options.connect() as client, shown_progress() as progress:
        source = sys.stdin.buffer if file == "-" else file
        volume = client.volumes.import_from(name, source, progress=progress, skipped=left_out.append, **wanted)
    for count in left_out:
        click.echo(f"sysproc: left out: {count} device nodes, sockets or attributes of other systems", err=True)
    if options.for_programs:
        print_document(options.output, volume_json(volume))
    else:
        click.echo(volume.name)
