"""The state machine of containers: the table, not the kernel (tests/e2e drives that)."""

import pytest

from sysproc.states import TRANSITIONS, State, Step, refused, sources, target


def test_every_step_leads_to_one_state_only() -> None:
    for step in Step:
        assert {to for (_, by), to in TRANSITIONS.items() if by is step} == {target(step)}


def test_everything_but_a_dying_container_can_be_destroyed() -> None:
    assert sources(Step.DESTROY) == set(State) - {State.DESTROYING}


def test_nothing_leads_out_of_destroying() -> None:
    assert not [step for at, step in TRANSITIONS if at is State.DESTROYING]


@pytest.mark.parametrize("state", State)
def test_a_refusal_says_the_state_and_the_way_out(state: State) -> None:
    error = refused("web", state, "frozen")
    assert str(state) in error.brief and error.resolution.endswith(".")
    assert error.metadata["state"] == state
