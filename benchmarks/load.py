"""Unary calls under load, by ghz (github.com/bojand/ghz), a load generator for gRPC that is not ours.

So many callers at once each send their next call when the last one is answered. ghz asks the service for its API
(server reflection). Without ghz on the PATH this part is left out and says so.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.left_out import LeftOut, leave_out
from benchmarks.measure import Timing
from sysproc_client import Client

CALLERS = (1, 8, 64)
CALLS = 2000


@dataclass(frozen=True)
class Load:
    """One method under the load of so many callers: calls a second, and the time of each in milliseconds."""

    method: str
    callers: int
    calls_s: float
    times_ms: tuple[float, ...]

    @property
    def timing(self) -> Timing:
        """Its times, as those of any other contender."""
        return Timing(f"{self.method}, {self.callers} at once", self.times_ms)


def load(client: Client, left_out: LeftOut) -> Sequence[Load]:
    """Methods that only read, one after the other; none without ghz."""
    if shutil.which("ghz") is None:
        why = "it is not installed (go install github.com/bojand/ghz/cmd/ghz@latest)"
        leave_out(left_out, "ghz", why)
        return []
    with client.create(image="busybox") as box:
        return list(loads(client.endpoint, str(int(box.id, 16))))


def loads(endpoint: str, container: str) -> Iterator[Load]:
    """Each method with each number of callers. The id is text: numbers of JSON are no integers of 64 bits."""
    methods: Mapping[str, Mapping[str, object]] = {
        "SystemService/WhoAmI": {},
        "ContainerService/GetContainer": {"container": {"id": container}},
        "ContainerService/ListContainers": {},
    }
    for method, request in methods.items():
        for callers in CALLERS:
            yield ghz(endpoint, method, request, callers)


def ghz(endpoint: str, method: str, request: Mapping[str, object], callers: int) -> Load:
    """Call it from so many callers. Raises AssertionError if one call was not answered well."""
    command = [
        *("ghz", "--insecure", f"--call=nightos.sysproc.v1.{method}", f"--data={json.dumps(request)}"),
        *(f"--concurrency={callers}", f"--total={CALLS}", "--format=json", "--skipFirst=100", endpoint),
    ]
    said = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    assert list(said["statusCodeDistribution"]) == ["OK"], said["statusCodeDistribution"]
    times = tuple(round(one["latency"] / 1e6, 3) for one in said["details"])
    return Load(method, callers, float(said["rps"]), times)
