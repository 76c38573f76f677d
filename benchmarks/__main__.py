"""`python -m benchmarks`: start a daemon of its own in a temporary directory, time everything, print tables.

Needs root. What is timed is in `benchmarks.lifecycle`, `benchmarks.cascade`, `benchmarks.volumes`,
`benchmarks.volume_io`, `benchmarks.load` and `benchmarks.idle`, how in `benchmarks.measure`; what is kept of it in
`benchmarks.results`.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from benchmarks import flood, intercepted, lifecycle, parts, peers, streaming, tables, volumes
from benchmarks.cascade import cascade, floor
from benchmarks.idle import idle
from benchmarks.load import load
from benchmarks.measure import Timing
from benchmarks.results import Results
from benchmarks.volume_io import TITLE, io
from sysproc_client import Client
from tests.e2e.daemon import RunningDaemon

console = Console()


@click.command()
@click.option("--runs", default=30, show_default=True, help="Counted turns of each contender.")
@click.option("--idle-count", default=1000, show_default=True, help="Idle containers; 0 leaves that benchmark out.")
@click.option("--cascade", "largest", default=1000, show_default=True, help="The largest tree; 0 leaves trees out.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all times there as well.")
def main(runs: int, idle_count: int, largest: int, json_file: Path | None) -> None:
    """Time sysproc beside its peers."""
    results = Results()
    with tempfile.TemporaryDirectory(prefix="sysproc-bench-") as directory, RunningDaemon() as daemon:
        root = peers.unpack_busybox(Path(directory))
        with Client(daemon.endpoint) as client:
            time_calls(results, client, Path(directory), root, runs)
            time_disks(results, client, daemon.directory)
            results.loads = load(client, results.left_out_of("load"))
            console.print(tables.load_table(results.loads))
            results.timings["flood"] = flood.flood(client)
            console.print(tables.flood_table(results.timings["flood"]))
            time_trees(results, client, daemon, largest)
            if idle_count:
                found = idle(client, daemon.pid, daemon.launcher_pid, idle_count)
                results.idle = found
                console.print(tables.idle_table(found))
    if json_file is not None:
        results.write(json_file)


def time_calls(results: Results, client: Client, directory: Path, root: Path, runs: int) -> None:
    """What is a table of contenders each."""
    one_shot, exec_true, left_out = "one-shot /bin/true", "exec /bin/true", results.left_out_of
    took: dict[str, Sequence[Timing]] = {
        one_shot: lifecycle.one_shot(client, directory, root, runs, left_out(one_shot)),
        exec_true: lifecycle.exec_true(client, directory, root, runs, left_out(exec_true)),
        "create, destroy": lifecycle.create_and_destroy(client, runs),
        "a tree of 100": lifecycle.tree_of_100(client, 3),
        **volumes.timings(client, directory, runs, left_out),
        f"{streaming.MIB} MiB through an exec": streaming.streaming(client, runs),
        "filters of system calls": parts.filters(runs),
        "making a filter": parts.compiling(runs),
        "claim a uid range": parts.claims(runs),
        "the interceptor, each call": intercepted.intercepted(runs),
    }
    for title, timings in took.items():
        console.print(tables.table(title, timings))
    results.timings |= took


def time_disks(results: Results, client: Client, disk: Path) -> None:
    """What volumes do, and cost."""
    results.io, results.decrypted_by = io(client, disk, results.left_out_of(TITLE))
    for table in tables.io_tables(results.io):
        console.print(table)
    console.print(f"encrypted volumes are decrypted by {results.decrypted_by}")
    results.memory_of_mount_kib = volumes.memory_of_mounts(client)
    console.print(f"memory of a mounted volume: {results.memory_of_mount_kib:.0f} KiB")


def time_trees(results: Results, client: Client, daemon: RunningDaemon, largest: int) -> None:
    """How long trees take to go, beside the kernel alone."""
    if not largest:
        return
    trees = [cascade(client, daemon.pid, count) for count in (10, 100, largest) if count <= largest]
    alone = floor(largest)
    console.print(tables.cascade_table(trees, alone))
    results.trees, results.trees_by_hand = trees, alone


if __name__ == "__main__":
    main()
