"""Who is left out of a benchmark, and why: peers that are not installed, or do not run here.

It is said at once, kept with the run, and shown on the page. The peers are in `benchmarks.peers` and
`benchmarks.volume_peers`.
"""

import subprocess
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import TypeVar

from sysproc_client import SysprocError

Work = Callable[[], object]
# Of one benchmark: who, and why in words.
LeftOut = dict[str, str]
Entered = TypeVar("Entered")
CANNOT = (FileNotFoundError, subprocess.CalledProcessError, SysprocError)


def leave_out(left_out: LeftOut, who: str, why: object) -> None:
    """Note it, and say it."""
    left_out[who] = why_not(why) if isinstance(why, CANNOT) else str(why)
    print(f"{who} is left out: {left_out[who]}")


def why_not(failure: Exception) -> str:
    """In one line: that a command is not there, or the last that it said."""
    if isinstance(failure, FileNotFoundError) and "/" not in str(failure.filename):
        return f"{failure.filename} is not installed"
    if isinstance(failure, subprocess.CalledProcessError):
        said = (failure.stderr or b"").decode(errors="replace").strip().splitlines()
        return said[-1] if said else f"it ends with {failure.returncode}"
    return str(failure).splitlines()[0]


def usable(works: Mapping[str, Work], left_out: LeftOut) -> dict[str, Work]:
    """Those that run here; each is tried once."""
    return {name: work for name, work in works.items() if is_usable(name, work, left_out)}


def is_usable(name: str, work: Work, left_out: LeftOut) -> bool:
    """Whether it runs; if not, it is left out."""
    try:
        work()
    except CANNOT as failure:
        leave_out(left_out, name, failure)
        return False
    return True


def entered(
    stack: ExitStack, who: str, context: AbstractContextManager[Entered], left_out: LeftOut
) -> "Entered | None":
    """What it gives, until the stack is closed; None where it cannot be made."""
    try:
        return stack.enter_context(context)
    except CANNOT as failure:
        leave_out(left_out, who, failure)
        return None
