"""Taking times fairly: contenders in turn, A B C A B C …, so that a drift of the machine hits all of them.

Only the arithmetic and the order belong here; what is timed is in the other modules.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """The times of one contender in one benchmark, in milliseconds, in the order they were taken."""

    contender: str
    times_ms: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        """The figure to quote."""
        return statistics.median(self.times_ms)

    @property
    def p90_ms(self) -> float:
        """Nine of ten were at least this quick."""
        return self.percentile_ms(0.9)

    def percentile_ms(self, part: float) -> float:
        """This part of all was at least this quick."""
        return sorted(self.times_ms)[int(part * (len(self.times_ms) - 1))]


def timed_ms(work: Callable[[], object]) -> float:
    """How long one call takes, in milliseconds of wall time, to the microsecond."""
    begin = time.perf_counter_ns()
    work()
    return round((time.perf_counter_ns() - begin) / 1e6, 3)


def interleaved(contenders: Mapping[str, Callable[[], object]], runs: int, warm_up: int = 3) -> Sequence[Timing]:
    """Time all contenders in turn, after a few turns that do not count."""
    for _ in range(warm_up):
        for work in contenders.values():
            work()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(runs):
        for name, work in contenders.items():
            times[name].append(timed_ms(work))
    return [Timing(name, tuple(taken)) for name, taken in times.items()]
