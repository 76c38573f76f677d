"""The limits that a container can have, what is too little or too much, and what it uses.

How a limit is written is known by the controllers (`sysproc.isolation.cgroups.controllers`); the size of a root is
no business of cgroups and lives in `sysproc.storage`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from sysproc.errors import FieldViolation, InvalidArgument

# Init, an exec'd process and its supervisor's share of kernel memory fit into it.
MIN_MEMORY_BYTES, MAX_MEMORY_BYTES = 4 << 20, (1 << 63) - 1
# The kernel's least quota is 1 ms in our period of 100 ms; 8192 is the most processors that Linux can have.
MIN_CPU_MILLIS, MAX_CPU_MILLIS = 10, 8192 * 1000
# PID_MAX_LIMIT of linux/threads.h is what pids.max takes at most.
MIN_PIDS, MAX_PIDS = 4, 4 << 20

_RANGES = {
    "memory_bytes": (MIN_MEMORY_BYTES, MAX_MEMORY_BYTES, "bytes"),
    "cpu_millis": (MIN_CPU_MILLIS, MAX_CPU_MILLIS, "thousandths of a processor"),
    "pids": (MIN_PIDS, MAX_PIDS, "processes and threads"),
}


@dataclass(frozen=True)
class Limits:
    """What a container and everything below it may use together; None: no limit of its own.

    memory_bytes: with the page cache and without swap: a limited container does not swap. cpu_millis: thousandths
    of a processor. pids: processes and threads.
    """

    memory_bytes: int | None = None
    cpu_millis: int | None = None
    pids: int | None = None

    def violations(self) -> Iterator[FieldViolation]:
        """What is out of range, if anything."""
        for name, (least, most, unit) in _RANGES.items():
            value: int | None = getattr(self, name)
            if value is not None and not least <= value <= most:
                yield FieldViolation(f"limits.{name}", f"{value} is not from {least} to {most} {unit}")

    def check(self) -> None:
        """Raise InvalidArgument if a limit is out of range."""
        if violations := tuple(self.violations()):
            raise InvalidArgument(
                "A limit is out of range.",
                details="; ".join(f"{one.field}: {one.description}" for one in violations) + ".",
                resolution="Ask for a value in the range, or leave the limit out for none.",
                reason="LIMIT_OUT_OF_RANGE",
                violations=violations,
            )


@dataclass(frozen=True)
class Stats:
    """What a container and everything below it uses; None: this kernel does not tell.

    memory_bytes: with the page cache. memory_peak_bytes: the most since it was started. cpu_usec: CPU time used, in
    microseconds. pids: processes and threads.
    """

    memory_bytes: int | None = None
    memory_peak_bytes: int | None = None
    cpu_usec: int | None = None
    pids: int | None = None
