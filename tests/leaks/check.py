"""Compares the machine before and after, and says what is left.

Much of the kernel's cleaning up happens later (keys, autoclear of loops, dying processes), so a difference
counts only when it stays. What is compared is the table in `tests.leaks.table`.
"""

import gc
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.leaks.scope import Scope
from tests.leaks.table import TABLE

Snapshot = Mapping[str, frozenset[str]]

# How long kernel and daemon may take to let go of what a test has destroyed; more where all is emulated.
PATIENCE_S = 60.0 if os.environ.get("SYSPROC_TEST_IN_VM") else 10.0


class Leaked(AssertionError):
    """Something of ours is still there; the text lists it by kind."""


def snapshot(scope: Scope) -> Snapshot:
    """Everything of the scope that is there now."""
    return {what: frozenset(getter(scope)) for what, getter in TABLE.items()}


def left(before: Snapshot, after: Snapshot) -> dict[str, list[str]]:
    """What is there now and was not before, by kind."""
    return {what: sorted(after[what] - before[what]) for what in TABLE if after[what] - before[what]}


def report(leaks: Mapping[str, list[str]]) -> str:
    """The list for people."""
    lines = [f"  {what}:\n" + "\n".join(f"    {item}" for item in items) for what, items in leaks.items()]
    return "left behind:\n" + "\n".join(lines)


def settle(before: Snapshot, scope: Scope, patience_s: float) -> dict[str, list[str]]:
    """What is left once it stays the same or patience is over; nothing, as soon as nothing is left."""
    deadline = time.monotonic() + patience_s
    while leaks := left(before, snapshot(scope)):
        # An exception that a test looked at may hold a frame, and that an fd.
        gc.collect()
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    return leaks


@contextmanager
def leak_check(scope: Scope, *, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Raise Leaked at the end of the block, if it leaves anything of the scope behind.

    A failure inside the block goes on, with what is left as a note: one report, not two.
    """
    before = snapshot(scope)
    try:
        yield
    except BaseException as failure:
        if leaks := settle(before, scope, patience_s):
            failure.add_note(report(leaks))
        raise
    if leaks := settle(before, scope, patience_s):
        raise Leaked(report(leaks))
