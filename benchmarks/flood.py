"""One container floods its socket: what do others notice of it?

Calls of WhoAmI by the host and by another container, quiet and during each kind of flood, in turn, so that a drift of
the machine hits both. A time counts from when its call was due: calls that wait for one another are not forgotten. The
flooder has half a processor by its container's limit: what is measured is the service, not the scheduler. Its own
process, and the kinds, are in `benchmarks.flooding`.
"""

import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import getsource
from itertools import product
from pathlib import Path

from benchmarks.measure import Timing
from sysproc_client import Client, Container
from tests.e2e.inside import init_of, script_inside

ROOT = Path(__file__).parents[1]
WHO = ("the host", "another container")
KINDS = ("calls", "pulses", "control", "messages", "input")
ROUNDS, CALLS = 8, 250
EVERY_S = 0.005


def on_time(client: "Client") -> list[float]:
    """Call at a steady pace; how long after it was due each call had its answer."""
    client.whoami()
    times, due = [], time.perf_counter()
    for _ in range(CALLS):
        due += EVERY_S
        time.sleep(max(0.0, due - time.perf_counter()))
        client.whoami()
        times.append((time.perf_counter() - due) * 1000)
    return times


# The same inside, where this module is out of reach.
ASK = f"""
import time
CALLS, EVERY_S = {CALLS}, {EVERY_S}
{getsource(on_time)}
answer = on_time(client)
"""


@contextmanager
def flooding(box: Container, kind: str) -> Iterator[None]:
    """A process of the container that floods, as long as the block lasts."""
    init = init_of(box)
    base = Path(f"/proc/{init}/uid_map").read_text().split()[1]
    command = [sys.executable, "-m", "benchmarks.flooding", str(init), base, kind]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        if process.stdout is None or process.stdout.readline() != b"flooding\n":
            raise RuntimeError("the flooder did not begin")
        yield
        if process.poll() is not None:
            raise RuntimeError("the flooder has ended")
    finally:
        process.kill()
        process.communicate()


def flood(client: Client, kinds: Sequence[str] = KINDS) -> Sequence[Timing]:
    """For each kind and each who: quiet, then during the flood."""
    times: defaultdict[str, list[float]] = defaultdict(list)
    neighbour = client.create()
    try:
        for kind, _ in product(kinds, range(ROUNDS)):
            ask(client, neighbour, f"no {kind}", times)
            flooder = client.create(cpus=0.5)
            try:
                with flooding(flooder, kind):
                    ask(client, neighbour, kind, times)
            finally:
                flooder.destroy()
    finally:
        neighbour.destroy()
    order = [f"{who}, {when}" for kind in kinds for who in WHO for when in (f"no {kind}", kind)]
    return [Timing(name, tuple(times[name])) for name in order]


def ask(client: Client, neighbour: Container, when: str, times: "defaultdict[str, list[float]]") -> None:
    """One round: by the host, then by another container."""
    for who, taken in zip(WHO, (on_time(client), script_inside(neighbour, ASK)), strict=True):
        times[f"{who}, {when}"] += taken
