"""What people write for sizes and numbers, as messages hold it."""

import pytest

from sysproc_client import InvalidArgument
from sysproc_client._core.values import count, cpu_millis, size_bytes


@pytest.mark.parametrize(
    ("text", "value"), [(0, 0), (5, 5), ("5", 5), ("1K", 1024), ("1.5M", 3 << 19), ("2g", 2 << 30), ("1T", 1 << 40)]
)
def test_sizes_are_bytes(text: int | str, value: int) -> None:
    assert size_bytes(text) == value


@pytest.mark.parametrize("text", ["", "M", "1X", "-1", -1, 1 << 64, "99999999999T", "1e3", "lots"])
def test_what_is_no_size_is_named(text: int | str) -> None:
    with pytest.raises(InvalidArgument, match="is no"):
        size_bytes(text)


@pytest.mark.parametrize(("text", "value"), [(0.5, 500), ("0.25", 250), (2, 2000), ("1e1", 10000)])
def test_processors_are_thousandths(text: float | str, value: int) -> None:
    assert cpu_millis(text) == value


@pytest.mark.parametrize("text", [-1, "-0.5", "many", "", "nan", "inf", 1e12])
def test_what_is_no_number_of_processors_is_named(text: float | str) -> None:
    with pytest.raises(InvalidArgument, match="is no number of processors"):
        cpu_millis(text)


@pytest.mark.parametrize("value", [-1, 1 << 32])
def test_what_no_message_can_hold_is_refused(value: int) -> None:
    with pytest.raises(InvalidArgument, match="processes"):
        count(value, "processes")
