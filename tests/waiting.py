"""Waiting for conditions, in every suite; loads nothing of gRPC. What is waited for is in the tests."""

import os
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE_S = 120.0 if os.environ.get("SYSPROC_TEST_IN_VM") else 30.0


def wait_until(condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait for a condition, not for a time."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {patience_s} s: {what}")
        time.sleep(0.01)


def is_zombie(pid: int) -> bool:
    """Whether a process has ended and only waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True
