"""The tables of a run in the terminal. What they hold is in `benchmarks.results`; the page is `benchmarks.page`."""

from collections.abc import Iterator, Sequence

from rich.table import Table

from benchmarks.cascade import Cascade, Floor
from benchmarks.idle import Idle
from benchmarks.io_tables import DIRECT_IO, ENCRYPTED, PLAIN
from benchmarks.load import Load
from benchmarks.measure import Timing
from benchmarks.volume_io import Io


def titled(title: str, *columns: str) -> Table:
    """An empty table."""
    return Table(*columns, title=title, title_justify="left")


def table(title: str, timings: Sequence[Timing]) -> Table:
    """One benchmark: medians, and each contender's ratio to ours, the first."""
    ours = timings[0].median_ms
    drawn = titled(title, "contender", "p50 ms", "p90 ms", "ratio to the first")
    for one in timings:
        drawn.add_row(one.contender, f"{one.median_ms:.2f}", f"{one.p90_ms:.2f}", f"{one.median_ms / ours:.2f}")
    return drawn


def flood_rows(timings: Sequence[Timing]) -> Iterator[tuple[str, str, str, str]]:
    """What others notice of a flood: each pair is quiet, then flooded."""
    for number, one in enumerate(timings):
        quiet = timings[number - number % 2].percentile_ms(0.99)
        p99 = one.percentile_ms(0.99)
        yield one.contender, f"{one.median_ms:.2f}", f"{p99:.2f}", f"{p99 / quiet:.2f}"


def flood_table(timings: Sequence[Timing]) -> Table:
    """The same, drawn."""
    drawn = titled("a container floods its socket", "who", "p50 ms", "p99 ms", "p99, ratio")
    for row in flood_rows(timings):
        drawn.add_row(*row)
    return drawn


def io_tables(found: Sequence[Io]) -> Iterator[Table]:
    """What volumes do beside the disk that their files are on, and beside each other."""
    for one in (PLAIN, DIRECT_IO, ENCRYPTED):
        if one.is_in(found):
            drawn = titled(one.title, *one.columns(found))
            for row in one.rows(found):
                drawn.add_row(*row)
            yield drawn


def load_rows(found: Sequence[Load]) -> Iterator[tuple[str, str, str, str, str]]:
    """Calls a second, and how long each took."""
    for one in found:
        p50, p99 = one.timing.median_ms, one.timing.percentile_ms(0.99)
        yield one.method, str(one.callers), f"{one.calls_s:.0f}", f"{p50:.2f}", f"{p99:.2f}"


def load_table(found: Sequence[Load]) -> Table:
    """The same, drawn."""
    drawn = titled("unary calls under load, by ghz", "method", "at once", "calls/s", "p50 ms", "p99 ms")
    for row in load_rows(found):
        drawn.add_row(*row)
    return drawn


def idle_table(found: Idle) -> Table:
    """What many idle containers cost."""
    drawn = titled(f"{found.count} idle containers", "what", "value")
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
