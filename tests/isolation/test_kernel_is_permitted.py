"""Communication with the kernel is fully permitted: what a container's root can do, under which profile.

The uses are real commands in a Debian root (`tests.isolation.kernel_uses`); each is run under `default`, where it
works, and under `strict`, where exactly those fail that are said to. What `default` denies is shown by calls
(`tests.isolation.denied_calls`). The tables go to docs/ISOLATION.md once all of it was shown.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from operator import attrgetter

import pytest

from sysproc_client import Client, Container
from tests.isolation.denied_calls import DENIED, PROGRAM, Denied, statements
from tests.isolation.kernel_uses import USES, Use
from tests.isolation.page import table, write_section

PROFILES = ("default", "strict")
PATIENCE_S = 60


@pytest.fixture(scope="module")
def boxes(client: Client, debian: str) -> Mapping[str, Container]:
    """A container under each profile."""
    return {profile: client.create(image=debian, name=profile, profile=profile) for profile in PROFILES}


@pytest.fixture(scope="module")
def shown() -> Iterator[set[tuple[str, str]]]:
    """What was tried and is as it is said to be. When that is everything, the page says so."""
    tried: set[tuple[str, str]] = set()
    yield tried
    uses = {(profile, use.what) for profile in PROFILES for use in USES}
    if tried == uses | {("denied", one.what) for one in DENIED}:
        write_section("what root can do", can_do())
        write_section("what strict takes away", taken_away())
        write_section("what nobody may", denied())


def can_do() -> str:
    """A line a use."""
    rows = [(use.what, "yes", f"no: {use.strict}" if use.strict else "yes") for use in USES]
    return table(("what a container's root does", "`default`", "`strict`"), rows)


def taken_away() -> str:
    """A line a reason."""
    reasons = dict.fromkeys(use.strict for use in USES if use.strict)
    return table(
        ("`strict` refuses", "so that these do not work"),
        [(reason, "; ".join(use.what for use in USES if use.strict == reason)) for reason in reasons],
    )


def denied() -> str:
    """A line a call."""
    rows = [(one.what, " or ".join(one.errnos), one.why) for one in DENIED]
    return table(("under `default` too", "is refused with", "by whom, or why"), rows)


def works(box: Container, use: Use) -> bool:
    """Whether the kernel did what the use asks of it."""
    result = box.run(["sh", "-euc", use.script], timeout=PATIENCE_S)
    sys.stdout.write(f"{box.name}: {result}\n")  # seen if the test fails
    return result.stdout.decode().strip() == use.says


@contextmanager
def noted(shown: set[tuple[str, str]], profile: str, what: str) -> Iterator[None]:
    """What is as it is said to be; what this kernel lacks, others have shown."""
    try:
        yield
    except pytest.skip.Exception:
        shown.add((profile, what))
        raise
    shown.add((profile, what))


def skip_if_lacking(box: Container, use: Use) -> None:
    """Not everything is in every kernel."""
    if use.needs and box.run(["sh", "-c", use.needs]).exit_code:
        pytest.skip(use.lacks)


@pytest.mark.parametrize("use", USES, ids=attrgetter("what"))
def test_root_can(boxes: Mapping[str, Container], shown: set[tuple[str, str]], use: Use) -> None:
    with noted(shown, "default", use.what):
        skip_if_lacking(boxes["default"], use)
        assert works(boxes["default"], use)


@pytest.mark.parametrize("use", USES, ids=attrgetter("what"))
def test_strict_takes_away_what_it_says(boxes: Mapping[str, Container], shown: set[tuple[str, str]], use: Use) -> None:
    with noted(shown, "strict", use.what):
        skip_if_lacking(boxes["default"], use)
        assert works(boxes["strict"], use) == (not use.strict)


@pytest.mark.parametrize("one", DENIED, ids=attrgetter("what"))
def test_nobody_may(boxes: Mapping[str, Container], shown: set[tuple[str, str]], one: Denied) -> None:
    with noted(shown, "denied", one.what):
        attempt = statements(one)
        if attempt is None:
            pytest.skip("this architecture has no such call")
        result = boxes["default"].run(["python3", "-c", PROGRAM, attempt], timeout=PATIENCE_S)
        assert result.stdout.decode().strip() in one.errnos, result.stderr
