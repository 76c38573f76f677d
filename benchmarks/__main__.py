"""`python -m benchmarks`: start a daemon of its own in a temporary directory, time everything, print tables.

Needs root. What is timed is in `benchmarks.lifecycle`, `benchmarks.cascade`, `benchmarks.volumes` and
`benchmarks.idle`, how in `benchmarks.measure`.
"""

import json
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks import flood, intercepted, lifecycle, parts, peers, streaming, volumes
from benchmarks.cascade import Cascade, Floor, cascade, floor
from benchmarks.idle import Idle, idle
from benchmarks.measure import Timing
from sysproc_client import Client
from tests.e2e.daemon import RunningDaemon

console = Console()


def table(title: str, timings: Sequence[Timing]) -> Table:
    """One benchmark: medians, and each contender's ratio to ours, the first."""
    ours = timings[0].median_ms
    drawn = Table("contender", "p50 ms", "p90 ms", "ratio to the first", title=title, title_justify="left")
    for one in timings:
        drawn.add_row(one.contender, f"{one.median_ms:.2f}", f"{one.p90_ms:.2f}", f"{one.median_ms / ours:.2f}")
    return drawn


def flood_table(timings: Sequence[Timing]) -> Table:
    """What others notice of a flood: each pair is quiet, then flooded."""
    drawn = Table("who", "p50 ms", "p99 ms", "p99, ratio", title="a container floods its socket", title_justify="left")
    for number, one in enumerate(timings):
        quiet = timings[number - number % 2].percentile_ms(0.99)
        p99 = one.percentile_ms(0.99)
        drawn.add_row(one.contender, f"{one.median_ms:.2f}", f"{p99:.2f}", f"{p99 / quiet:.2f}")
    return drawn


def io_table(found: Sequence[volumes.Io]) -> Table:
    """What a volume does beside the disk that its file is on."""
    drawn = Table(
        "job", "volume", "host", "ratio", title="I/O on a volume, and on the host's disk", title_justify="left"
    )
    for one in found:
        name = f"{one.job}, {'direct' if one.direct else 'buffered'}"
        drawn.add_row(name, f"{one.volume:.0f} {one.unit}", f"{one.host:.0f} {one.unit}", f"{one.ratio:.2f}")
    return drawn


def idle_table(found: Idle) -> Table:
    """What many idle containers cost."""
    drawn = Table("what", "value", title=f"{found.count} idle containers", title_justify="left")
    drawn.add_row("create, first 20 (p50)", f"{found.first_create_ms:.2f} ms")
    drawn.add_row("create, last 20 (p50)", f"{found.last_create_ms:.2f} ms")
    drawn.add_row("processes (PSS), each", f"{found.processes_pss_kib:.0f} KiB")
    drawn.add_row("kernel, each", f"{found.slab_kib:.0f} KiB")
    drawn.add_row("daemon grew by", f"{found.daemon_rss_mib:.1f} MiB")
    drawn.add_row("all told, each", f"{found.each_kib:.0f} KiB")
    return drawn


def cascade_table(found: Sequence[Cascade], alone: Floor) -> Table:
    """What destroying trees took, and below it what the kernel alone takes for the largest."""
    drawn = Table("a tree of", "all gone", "each", "first gone", "cpu of the daemon", "ratio to the kernel")
    for one in found:
        figures = (one.total_ms, one.each_ms, one.first_ms, one.daemon_cpu_ms)
        ratio = f"{one.total_ms / alone.total_ms:.2f}" if one.count == alone.count else ""
        drawn.add_row(str(one.count), *(f"{figure:.1f} ms" for figure in figures), ratio)
    parts_ms = f"ended {alone.ended_ms:.0f}, cgroups {alone.cgroups_ms:.0f}, files {alone.files_ms:.0f}"
    drawn.add_section()
    drawn.add_row("by hand", f"{alone.total_ms:.1f} ms", f"{alone.total_ms / alone.count:.1f} ms", parts_ms)
    drawn.add_row("bare inits", f"{alone.bare_ms:.1f} ms", f"{alone.bare_ms / alone.count:.1f} ms")
    return drawn


@click.command()
@click.option("--runs", default=30, show_default=True, help="Counted turns of each contender.")
@click.option("--idle-count", default=1000, show_default=True, help="Idle containers; 0 leaves that benchmark out.")
@click.option("--cascade", "largest", default=1000, show_default=True, help="The largest tree; 0 leaves trees out.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all times there as well.")
def main(runs: int, idle_count: int, largest: int, json_file: Path | None) -> None:
    """Time sysproc beside its peers."""
    with tempfile.TemporaryDirectory(prefix="sysproc-bench-") as directory, RunningDaemon() as daemon:
        root = peers.unpack_busybox(Path(directory))
        with Client(daemon.endpoint) as client:
            results = {
                "one-shot /bin/true": lifecycle.one_shot(client, Path(directory), root, runs),
                "exec /bin/true": lifecycle.exec_true(client, Path(directory), root, runs),
                "create, destroy": lifecycle.create_and_destroy(client, runs),
                "a tree of 100": lifecycle.tree_of_100(client, 3),
                "making volumes": volumes.making(client, runs),
                "mounting volumes": volumes.mounting(client, runs),
                f"{streaming.MIB} MiB through an exec": streaming.streaming(client, runs),
                "filters of system calls": parts.filters(runs),
                "making a filter": parts.compiling(runs),
                "claim a uid range": parts.claims(runs),
                "the interceptor, each call": intercepted.intercepted(runs),
            }
            for title, timings in results.items():
                console.print(table(title, timings))
            console.print(io_table(volumes.io(client, daemon.directory)))
            console.print(f"memory of a mounted volume: {volumes.memory_of_mounts(client):.0f} KiB")
            results["flood"] = flood.flood(client)
            console.print(flood_table(results["flood"]))
            trees = [cascade(client, daemon.pid, count) for count in (10, 100, largest) if count <= largest]
            alone = floor(largest) if largest else None
            if alone is not None:
                console.print(cascade_table(trees, alone))
            found = idle(client, daemon.pid, daemon.launcher_pid, idle_count) if idle_count else None
            if found is not None:
                console.print(idle_table(found))
    if json_file is not None:
        json_file.write_text(json.dumps(as_json(results, found, trees, alone), indent=1))


def as_json(
    results: dict[str, Sequence[Timing]], found: Idle | None, trees: Sequence[Cascade], alone: Floor | None
) -> dict[str, object]:
    """Everything, with the machine it was measured on."""
    return {
        "machine": {
            "kernel": platform.release(),
            "python": platform.python_version(),
            "arch": platform.machine(),
        },
        "timings": {title: [asdict(one) for one in timings] for title, timings in results.items()},
        "idle": asdict(found) if found else None,
        "cascade": [asdict(one) for one in trees],
        "cascade by hand": asdict(alone) if alone else None,
    }


if __name__ == "__main__":
    main()
