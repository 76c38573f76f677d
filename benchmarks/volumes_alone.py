"""`python -m benchmarks.volumes_alone`: what concerns volumes, in a daemon of its own; and its tables.

That is `benchmarks.volumes` and `benchmarks.volume_io`. Needs root, and 6 GiB where temporary files are.
"""

import click
from rich.console import Console

from benchmarks import tables, volumes
from benchmarks.results import Results
from benchmarks.volume_io import TITLE, io
from sysproc_client import Client
from tests.e2e.daemon import RunningDaemon


@click.command()
@click.option("--runs", default=30, show_default=True, help="Counted turns of each contender.")
def main(runs: int) -> None:
    """Time volumes beside their peers."""
    console, results = Console(), Results()
    with RunningDaemon() as daemon, Client(daemon.endpoint) as client:
        for title, timings in volumes.timings(client, daemon.directory, runs, results.left_out_of).items():
            console.print(tables.table(title, timings))
        found, decrypted_by = io(client, daemon.directory, results.left_out_of(TITLE))
        for table in tables.io_tables(found):
            console.print(table)
        console.print(f"encrypted volumes are decrypted by {decrypted_by}")
        console.print(f"memory of a mounted volume: {volumes.memory_of_mounts(client):.0f} KiB")


if __name__ == "__main__":
    main()
