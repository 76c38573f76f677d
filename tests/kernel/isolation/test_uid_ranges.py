"""A range in which somebody lives is never given away."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from sysproc.errors import ResourceExhausted
from sysproc.isolation.uid_ranges import UidRange, UidRanges
from sysproc.linux.prctl import set_pdeathsig

# Not the default range: other daemons of this host may be busy there.
FIRST = 0x6FFF0000


@pytest.fixture
def inhabitant() -> Iterator[int]:
    """A process whose real uid is the last of the range, and no other."""
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setresgid(FIRST + 5, FIRST + 5, FIRST + 5)
        os.setresuid(FIRST + 65535, 4711, 4712)
        set_pdeathsig(signal.SIGKILL)
        os.write(told, b"!")
        signal.pause()
    os.read(ready, 1)
    os.close(ready)
    os.close(told)
    yield pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_range_where_somebody_lives_without_a_claim_is_avoided(tmp_path: Path, inhabitant: int) -> None:
    ranges = UidRanges(tmp_path, FIRST, 1)
    with pytest.raises(ResourceExhausted, match="1 of them are left alone"):
        ranges.claim("me")
    os.kill(inhabitant, signal.SIGKILL)
    os.waitid(os.P_PID, inhabitant, os.WEXITED | os.WNOWAIT)
    assert ranges.claim("me") == UidRange(FIRST)


def test_what_an_earlier_life_has_left_stays_claimed_while_somebody_lives_there(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    UidRanges(tmp_path, FIRST, 1).claim("container")
    pid = request.getfixturevalue("inhabitant")
    later = UidRanges(tmp_path, FIRST, 1)
    assert not later.reclaim("container")
    with pytest.raises(ResourceExhausted):
        later.claim("another")
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert later.reclaim("container")
    assert list(tmp_path.iterdir()) == []


def test_what_this_life_has_claimed_is_given_back_at_once(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    ranges = UidRanges(tmp_path, FIRST, 1)
    ranges.claim("container")
    request.getfixturevalue("inhabitant")
    assert ranges.reclaim("container")
