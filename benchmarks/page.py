"""`python -m benchmarks.page FILE DIRECTORY`: docs/BENCHMARKS.md and its picture from one kept run.

Both are made of that file alone, so that a page never says what nobody has measured. The bars are drawn by
`benchmarks.picture`.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import click

from benchmarks import picture
from benchmarks.io_tables import DIRECT_IO, ENCRYPTED, PLAIN, IoTable
from benchmarks.left_out import LeftOut
from benchmarks.measure import Timing
from benchmarks.results import NoResults, Results, read
from benchmarks.tables import flood_rows, load_rows
from benchmarks.volume_io import TITLE

PAGE, PICTURE = "BENCHMARKS.md", "benchmarks.svg"
# What is shown: the title of the table, and what a reader has to know to read it.
SHOWN = {
    "one-shot /bin/true": "A container is made, runs one command, and is destroyed; the peers do the same on the same "
    "busybox root. sysproc's has a filesystem, a record, a socket and a tree of its own, and is made by a daemon; "
    "bwrap's is a few namespaces.",
    "exec /bin/true": "One more process in a container that runs.",
    "create, destroy": "Until the answer is there.",
    "a tree of 100": "Four levels: made one by one, destroyed by one call. Each time is that of all 100.",
    "making volumes": "A file with a partition table and an ext4, of a size that there was one of before.",
    "mounting volumes": "Into a container that runs; `second`: its device is there already.",
    "mounting, beside others": "Ours into a container that runs; the others on the host, an image of the same kind. "
    "A volume of podman's is a bind mount: the host's disk.",
    "copying 1 GiB, 200 MiB used": "On a disk that shares no blocks; of a mounted one all writers wait meanwhile. The "
    "copy has UUIDs of its own, and is on the disk; `cp`'s is on the disk.",
    "copying 1 GiB, 200 MiB used, with reflink": "The same on xfs.",
    "64 MiB through an exec": "Output and input of a process in a container, through both shells of the Python client.",
}
OF_DIRECT_IO = (
    "`sysproc mount --direct-io` passes the host's page cache: what is in the volume is in memory once, and what is "
    "read comes no quicker than from the disk."
)
OF_ENCRYPTION = (
    "Where the kernel has dm-crypt, that decrypts; else a process for each open volume, which costs more, and has no "
    "`--direct-io`."
)
# Of fewer times there is no tenth that was slower.
FEWEST_FOR_P90 = 10
HEAD = """\
# Benchmarks

Made by `make bench-page` from one run of `make bench`, all contenders in turn within it ([all times](benchmarks.json)).
Another machine has other figures: compare ratios, and with `make bench-compare BEFORE=a.json AFTER=b.json` runs of one
machine.

![times and ratios](benchmarks.svg)
"""


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of a table; all columns but the first hold figures."""
    yield f"| {' | '.join(head)} |"
    yield f"|---|{'--:|' * (len(head) - 1)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def timing_rows(timings: Sequence[Timing]) -> Iterator[Sequence[str]]:
    """Of one benchmark."""
    for one in timings:
        ratio = one.median_ms / timings[0].median_ms
        p90 = f"{one.p90_ms:.2f}" if len(one.times_ms) >= FEWEST_FOR_P90 else ""
        yield one.contender, f"{one.median_ms:.2f}", p90, f"{ratio:.2f}"


def heading(title: str) -> str:
    """With a capital; units keep theirs."""
    return title[:1].upper() + title[1:]


def left_out(of: LeftOut) -> Iterator[str]:
    """Who is not in a table, and why: what was found there, as it was said."""
    if of:
        yield "Left out, as it does not run on this machine:\n"
        for who, why in of.items():
            quoted = why.replace("`", "'")
            yield f"- {who}: `{quoted}`"
        yield ""


def calls(results: Results) -> Iterator[str]:
    """What is timed by calls."""
    for title, words in SHOWN.items():
        timings, missing = results.timings.get(title), results.left_out.get(title, {})
        if timings or missing:
            yield f"## {heading(title)}\n\n{words}\n"
        if timings:
            yield from markdown_table(("contender", "p50 ms", "p90 ms", "ratio to the first"), timing_rows(timings))
        yield from left_out(missing)


def disks(results: Results) -> Iterator[str]:
    """What volumes do."""
    yield f"## {TITLE}\n"
    yield (
        "fio, in a container's volume and on the host's disk that the volume's file is on. A volume is a file behind "
        "a loop device: **a synced write costs two** (the filesystem's journal inside, the host's below), about half "
        "the rate; reads may be quicker, as the host's page cache holds them too. `buffered` and `direct` say how fio "
        "opens its file. A volume of podman's is a directory of the host's.\n"
    )
    yield from io_table(PLAIN, results)
    yield from left_out(results.left_out.get(TITLE, {}))
    if DIRECT_IO.is_in(results.io):
        yield f"### With `--direct-io`\n\n{OF_DIRECT_IO}\n"
        yield from io_table(DIRECT_IO, results)
    if ENCRYPTED.is_in(results.io):
        yield f"### Encrypted\n\nDecrypted by {results.decrypted_by}. {OF_ENCRYPTION}\n"
        yield from io_table(ENCRYPTED, results)
    if results.memory_of_mount_kib is not None:
        yield f"A mounted volume holds {results.memory_of_mount_kib:.0f} KiB of the kernel's memory.\n"


def io_table(table: IoTable, results: Results) -> Iterator[str]:
    """As lines."""
    yield from markdown_table(table.columns(results.io), table.rows(results.io))


def many(results: Results) -> Iterator[str]:
    """What is noticed when there is much of something."""
    without_load = results.left_out.get("load", {})
    if results.loads or without_load:
        yield "## Unary calls under load\n\nBy ghz, over the host's socket; each caller waits for its answer.\n"
    if results.loads:
        head = ("method", "at once", "calls a second", "p50 ms", "p99 ms")
        yield from markdown_table(head, load_rows(results.loads))
    yield from left_out(without_load)
    if "flood" in results.timings:
        yield "## A container floods its socket\n\nWhat the host and another container notice of it.\n"
        yield from markdown_table(
            ("who", "p50 ms", "p99 ms", "p99, ratio to quiet"), flood_rows(results.timings["flood"])
        )
    if results.idle is not None:
        yield f"## Idle containers\n\n{results.idle.count} hold {results.idle.each_kib:.0f} KiB each, all told.\n"
    if results.trees and results.trees_by_hand is not None:
        largest, alone = results.trees[-1], results.trees_by_hand
        yield (
            f"## Destroying a tree\n\n{largest.count} containers are gone after {largest.total_ms:.0f} ms; "
            f"the same system calls by hand, without a service, take {alone.total_ms:.0f} ms.\n"
        )


def conditions(results: Results) -> Iterator[str]:
    """What it was measured on."""
    yield f"## The machine\n\nTaken {results.taken}.\n"
    facts = [*results.machine.items(), *results.versions.items()]
    yield from markdown_table(("what", "which"), facts)


def page(results: Results) -> str:
    """The whole page."""
    parts = (calls, disks, many, conditions)
    return "\n".join([HEAD, *(line for part in parts for line in part(results))]).rstrip() + "\n"


@click.command()
@click.argument("results", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(results: Path, directory: Path) -> None:
    """Write the page and the picture of a kept run into a directory."""
    try:
        found = read(results)
    except NoResults as failure:
        raise click.ClickException(str(failure)) from failure
    (directory / PAGE).write_text(page(found))
    (directory / PICTURE).write_text(picture.drawing(found))


if __name__ == "__main__":
    main()
