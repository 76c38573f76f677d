"""`python -m benchmarks.volumes_alone`: what is in `benchmarks.volumes`, in a daemon of its own; and its tables.

Needs root, and 6 GiB where temporary files are.
"""

import click
from rich.console import Console

from benchmarks import tables, volumes
from sysproc_client import Client
from tests.e2e.daemon import RunningDaemon


@click.command()
@click.option("--runs", default=30, show_default=True, help="Counted turns of each contender.")
def main(runs: int) -> None:
    """Time volumes beside their peers."""
    console = Console()
    with RunningDaemon() as daemon, Client(daemon.endpoint) as client:
        for title, timings in volumes.timings(client, daemon.directory, runs).items():
            console.print(tables.table(title, timings))
        console.print(tables.io_table(volumes.io(client, daemon.directory)))
        console.print(f"memory of a mounted volume: {volumes.memory_of_mounts(client):.0f} KiB")


if __name__ == "__main__":
    main()
