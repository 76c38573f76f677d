"""The line that says how far a transfer is, in windows of any width."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysproc_client.cli.progress import BAR_WIDTH, bar, line

M = 1 << 20


def test_of_a_known_total_a_bar_a_rate_and_a_time_are_shown() -> None:
    shown = line(12 * M, 30 * M, 1.5, 100, "118 entries")
    assert shown.split() == ["40%", *bar(0.4).split(), "12M", "of", "30M", "8M/s", "2s", "left", "118", "entries"]


def test_without_a_total_it_is_said_how_much_there_was() -> None:
    assert line(12 * M, 0, 1.5, 80) == "12M  8M/s"
    assert line(12 * M, 0, 0.1, 80) == "12M"


@pytest.mark.parametrize(("share", "filled"), [(0.0, 0), (0.5, BAR_WIDTH // 2), (1.0, BAR_WIDTH)])
def test_a_bar_is_as_full_as_its_share(share: float, filled: int) -> None:
    assert bar(share) == ("█" * filled).ljust(BAR_WIDTH)


@given(st.integers(0, 2**60), st.integers(0, 2**60), st.floats(0, 1e6), st.integers(20, 200))
def test_it_fits_into_the_window(done: int, total: int, elapsed: float, columns: int) -> None:
    assert len(line(done, total, elapsed, columns, "1234 entries")) <= columns
    assert len(bar(min(1.0, done / (total or 1)))) == BAR_WIDTH
