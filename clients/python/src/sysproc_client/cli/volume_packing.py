"""`volume create --from`: read-only volumes. The rest of `volume create` is in `sysproc_client.cli.volumes`."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from sysproc_client.cli.main import Options
from sysproc_client.cli.progress import of_entries, shown_progress, size_of

if TYPE_CHECKING:
    from sysproc_client.volumes import Volume

PACKED_TYPES = ("erofs", "squashfs")

from_option = click.option(
    "--from",
    "source",
    metavar="FOLDER|TAR|-",
    help="What is in it, for erofs and squashfs: a folder, a tar (plain, gzip, xz, zstd), or standard input.",
)
compress_option = click.option(
    "--compress",
    default="",
    metavar="ALGORITHM[:LEVEL]",
    help="erofs: lz4, lz4hc, zstd, deflate; squashfs: gzip, zstd, xz, lz4; btrfs: zstd, zlib, lzo.",
)


def packed_volume(options: Options, name: str, fstype: str, source: str | None, wanted: Mapping[str, Any]) -> "Volume":
    """Make a read-only volume."""
    if fstype not in PACKED_TYPES:
        raise click.UsageError("--from is for --fs erofs and --fs squashfs.")
    if source is None:
        raise click.UsageError(f"Say what shall be in the {fstype}: --from FOLDER|TAR|-.")
    if wanted["size"] or wanted["filesystems"]:
        raise click.UsageError(f"{fstype} is as large as it has to be, and alone: leave out --size and --part.")
    if wanted["encrypt"]:
        raise click.UsageError(f"{fstype} is not encrypted: leave out --encrypt.")
    what = sys.stdin.buffer if source == "-" else source
    chosen = {key: wanted[key] for key in ("compress", "owner", "on_destroy", "overcommit")}
    with options.connect() as client, shown_progress(size_of(source)) as progress:
        made: Volume = client.volumes.create_from(name, what, fs=fstype, progress=of_entries(progress), **chosen)
        return made
