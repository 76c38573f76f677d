"""One container floods its socket: what do others notice of it?

Calls of WhoAmI one after the other, by the host and by another container, quiet and during the flood. The flooder has
half a processor by its container's limit: what is measured is the service, not the scheduler. Its own process is
`benchmarks.flooding`.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import Timing, timed_ms
from sysproc_client import Client, Container
from tests.e2e.inside import init_of, script_inside

ROOT = Path(__file__).parents[1]
CALLS = 1000
ASK = f"""
import time
answer = []
client.whoami()
for _ in range({CALLS}):
    begin = time.perf_counter_ns()
    client.whoami()
    answer.append((time.perf_counter_ns() - begin) / 1e6)
    time.sleep(0.005)
"""


@contextmanager
def flooding(box: Container) -> Iterator[None]:
    """A process of the container that floods, as long as the block lasts."""
    init = init_of(box)
    base = Path(f"/proc/{init}/uid_map").read_text().split()[1]
    command = [sys.executable, "-m", "benchmarks.flooding", str(init), base]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        if process.stdout is None or process.stdout.readline() != b"flooding\n":
            raise RuntimeError("the flooder did not begin")
        yield
    finally:
        process.kill()
        process.communicate()


def ask(client: Client, neighbour: Container) -> Mapping[str, tuple[float, ...]]:
    """The times of calls by the host and by another container."""
    client.whoami()
    host = tuple(timed_ms(client.whoami) for _ in range(CALLS))
    return {"the host": host, "another container": tuple(script_inside(neighbour, ASK))}


def flood(client: Client) -> Sequence[Timing]:
    """Quiet, then during the flood."""
    flooder, neighbour = client.create(cpus=0.5), client.create()
    try:
        quiet = ask(client, neighbour)
        with flooding(flooder):
            loud = ask(client, neighbour)
    finally:
        flooder.destroy()
        neighbour.destroy()
    return [
        Timing(f"{who}, {when}", times[who])
        for who in quiet
        for when, times in (("quiet", quiet), ("during the flood", loud))
    ]
