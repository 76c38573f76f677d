"""Processes of Exec, looked at from inside from their first moment on: nothing of the host, whatever is readable.

The supervisor alone is in `tests/kernel/exec/test_births.py`; the program that looks is beside it.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sysproc.isolation.cgroups import CgroupMode
from sysproc.isolation.cgroups.hierarchies import find
from sysproc_client import Client
from tests.compiled import compiled
from tests.isolation.attacks import PATIENCE_S, put

pytestmark = pytest.mark.vm

BIRTHS = 40
READABLE = ("mountinfo", "mounts", "mountstats", "net/dev", "net/route", "net/unix")
# On version 1 a process is born where its supervisor is, which from inside is `/../..` and a name of this service.
ON_VERSION_2 = ("cgroup",) if find().mode is CgroupMode.UNIFIED else ()


def test_nothing_of_the_host_is_seen_of_a_process_at_its_birth(client: Client) -> None:
    program = compiled(Path(__file__).parents[1] / "kernel" / "exec" / "births.c")
    if program is None:
        pytest.skip("no C compiler here")
    box = client.create()
    put(box, "/births", program.read_bytes())
    with ThreadPoolExecutor() as threads:
        watching = threads.submit(box.run, ["/births", str(BIRTHS), *READABLE, *ON_VERSION_2], timeout=PATIENCE_S)
        while not watching.done():
            box.run(["true"])
    assert watching.result().stdout == b"ready\n%d births\n" % BIRTHS
