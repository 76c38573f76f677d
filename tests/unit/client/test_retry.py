"""What is tried again, and until when: the rule by itself, without a service."""

import pytest

from sysproc_client._core.retry import LONGEST_PAUSE_S, PATIENCE_S, Attempts, Fate


@pytest.mark.parametrize(
    ("fate", "repeatable", "again"),
    [
        (Fate.REFUSED, True, True),
        (Fate.REFUSED, False, True),
        (Fate.UNSENT, True, False),
        (Fate.UNSENT, False, False),
        (Fate.UNKNOWN, True, True),
        (Fate.UNKNOWN, False, False),
        (Fate.FINAL, True, False),
        (Fate.FINAL, False, False),
    ],
)
def test_only_what_cannot_do_harm_is_tried_again(fate: Fate, repeatable: bool, again: bool) -> None:
    assert (Attempts(repeatable=repeatable).pause_after(fate, 0.0) is not None) is again


def test_a_service_that_was_lost_is_waited_for_as_long_as_patience_lasts() -> None:
    attempts = Attempts(patience_s=10)
    assert attempts.pause_after(Fate.UNKNOWN, 100.0) is not None
    assert attempts.pause_after(Fate.UNSENT, 109.0) is not None
    assert attempts.pause_after(Fate.UNSENT, 110.0) is None


def test_what_was_refused_is_given_up_at_some_time() -> None:
    attempts = Attempts()
    assert attempts.pause_after(Fate.REFUSED, 0.0) is not None
    assert attempts.pause_after(Fate.REFUSED, PATIENCE_S) is None


def test_pauses_grow_to_a_bound_and_begin_anew_after_an_answer() -> None:
    attempts = Attempts(patience_s=1e9)
    pauses = [attempts.pause_after(Fate.UNKNOWN, float(at)) or 0 for at in range(2000)]
    assert pauses == sorted(pauses) and pauses[-1] == LONGEST_PAUSE_S
    attempts.progressed()
    assert attempts.pause_after(Fate.UNSENT, 3000.0) is None
    attempts.progressed()
    assert attempts.pause_after(Fate.UNKNOWN, 3000.0) == pauses[0]


def test_an_absence_is_told_once() -> None:
    attempts = Attempts()
    attempts.pause_after(Fate.UNKNOWN, 0.0)
    assert [attempts.worth_saying(at) for at in (0.0, 1.0, 2.0, 3.0)] == [False, False, True, False]
    attempts.progressed()
    attempts.pause_after(Fate.UNKNOWN, 10.0)
    assert attempts.worth_saying(12.0)
