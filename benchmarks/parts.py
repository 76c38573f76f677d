"""What parts cost by themselves, without a daemon: filters of system calls, identities, claims of uid ranges.

The whole path is timed in `benchmarks.lifecycle`.
"""

import os
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from subprocess import PIPE, Popen
from typing import IO, cast

from benchmarks.measure import Timing, interleaved
from sysproc.isolation.seccomp_profiles import compile_profile
from sysproc.isolation.uid_ranges import UidRanges

MACHINE = os.uname().machine
CALLS = 20_000
IN_USE = 2000
PROFILES = ("open", "default", "strict")
# Puts itself below a filter, then makes many cheap system calls for each line that it reads.
CALLER = f"""
import os, sys
from sysproc.isolation.seccomp_profiles import compile_profile
from sysproc.linux.seccomp import load_filter
load_filter(compile_profile(sys.argv[1], os.uname().machine))
for line in sys.stdin:
    for turn in range({CALLS}):
        os.getppid()
    print(flush=True)
"""


def filters(runs: int) -> Sequence[Timing]:
    """The same 20,000 system calls below each profile: the difference is what its filter costs."""
    processes = {name: under(name) for name in PROFILES}
    try:
        works = {f"{name}, {CALLS} calls": partial(ask, process) for name, process in processes.items()}
        return interleaved(works, runs)
    finally:
        for process in processes.values():
            process.communicate()


def under(profile: str) -> "Popen[bytes]":
    """A process that makes the calls when it is asked to, below a profile."""
    return Popen([sys.executable, "-c", CALLER, profile], stdin=PIPE, stdout=PIPE)


def ask(process: "Popen[bytes]") -> None:
    """One round of calls."""
    to, answers = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
    to.write(b"\n")
    to.flush()
    answers.readline()


def compiling(runs: int) -> Sequence[Timing]:
    """Making a filter, which is done once for each profile that has one."""
    filtering = [name for name in PROFILES if compile_profile(name, MACHINE)]
    return interleaved({name: partial(compile_profile.__wrapped__, name, MACHINE) for name in filtering}, runs)


def claims(runs: int) -> Sequence[Timing]:
    """Claiming a uid range and giving it back, with none in use and with many."""
    with tempfile.TemporaryDirectory(prefix="sysproc-bench-") as directory:
        few = UidRanges(Path(directory) / "few", 0x70000000, 4096, subordinate=())
        many = UidRanges(Path(directory) / "many", 0x70000000, 4096, subordinate=())
        for number in range(IN_USE):
            many.claim(str(number))
        return interleaved({"none in use": lambda: turn(few), f"{IN_USE} in use": lambda: turn(many)}, runs)


def turn(ranges: UidRanges) -> None:
    """Claim one, and give it back."""
    ranges.claim("timed")
    ranges.reclaim("timed")
