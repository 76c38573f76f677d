"""The life of a container through our API, beside the peers: one-shot run, create, exec, destroy, a tree of 100.

Each benchmark returns timings only; `benchmarks.__main__` prints them.
"""

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from benchmarks import peers
from benchmarks.left_out import LeftOut, entered
from benchmarks.measure import Timing, interleaved, timed_ms
from sysproc_client import Client, Container


def one_shot(client: Client, directory: Path, root: Path, runs: int, left_out: LeftOut) -> Sequence[Timing]:
    """Make a container, run /bin/true in it, remove it."""

    def ours() -> None:
        box = client.create(image="busybox")
        box.run(["/bin/true"])
        box.destroy()

    host = {"spawn on the host": lambda: subprocess.run(["/bin/true"], check=True)}
    return interleaved({"sysproc": ours, **host, **peers.one_shots(directory, root, left_out)}, runs)


def exec_true(client: Client, directory: Path, root: Path, runs: int, left_out: LeftOut) -> Sequence[Timing]:
    """Run /bin/true in a container that runs already."""
    box = client.create(image="busybox")
    with ExitStack() as stack:
        stack.callback(box.destroy)
        works: dict[str, Callable[[], object]] = {"sysproc": lambda: box.run(["/bin/true"])}
        for runtime in peers.RUNTIMES:
            work, enters = f"{runtime} exec", f"nsenter into {runtime}'s"
            if (running := entered(stack, work, peers.running(runtime, directory, root), left_out)) is None:
                left_out[enters] = left_out[work]
                continue
            works |= {work: running[0], enters: peers.nsenter(running[1])}
        return interleaved(works, runs)


def create_into(client: Client, made: list[Container]) -> None:
    """Create one more."""
    made.append(client.create(image="busybox"))


def create_and_destroy(client: Client, runs: int) -> Sequence[Timing]:
    """Create and destroy by themselves; no peer separates them in one call."""
    creates, destroys = [], []
    for _ in range(runs):
        made: list[Container] = []
        creates.append(timed_ms(partial(create_into, client, made)))
        destroys.append(timed_ms(made[0].destroy))
    return [Timing("create", tuple(creates)), Timing("destroy", tuple(destroys))]


def tree_of_100(client: Client, runs: int) -> Sequence[Timing]:
    """A root with 3 levels below it, 100 containers in all: made one by one, destroyed by one call."""
    creates, destroys = [], []
    for _ in range(runs):
        with grown(client, 100) as (boxes, took_ms):
            creates.append(took_ms)
            destroys.append(timed_ms(boxes[0].destroy))
    return [Timing("create 100", tuple(creates)), Timing("destroy the tree", tuple(destroys))]


@contextmanager
def grown(client: Client, count: int, fan_out: int = 5) -> Iterator[tuple[list[Container], float]]:
    """A tree of so many containers, each with at most so many children."""
    boxes: list[Container] = []

    def grow() -> None:
        for number in range(count):
            parent = boxes[(number - 1) // fan_out].id if number else None
            boxes.append(client.create(image="busybox", parent=parent))

    yield boxes, timed_ms(grow)
