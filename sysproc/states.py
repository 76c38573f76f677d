"""The states of a container, as one drawn machine that runs from a table.

Only the rules belong here; what is done on the way is in `sysproc.containers` and its neighbours, and the change
itself is written by `sysproc.storage.hierarchy`.

    (nothing) --create--> CREATING --started--> RUNNING --freeze--> FROZEN
                             |                  |   ^ ^                | |
                             |                  |   | +------thaw------+ |
                             +--left stopped--+ |   |                    |
                                              v v   |                    |
                                             STOPPED+--start             |
                                                ^                        |
                                                +------init ended--------+

    any state but DESTROYING --destroy--> DESTROYING --gone--> (nothing)
    CREATING --a crash, or a step that failed--> (nothing): it is undone
    any state --the kernel and the record disagree, and cannot be made to agree--> FAILED
"""

from enum import StrEnum

from sysproc.errors import FailedPrecondition


class State(StrEnum):
    """What a container is at the moment; the values are what the database holds."""

    CREATING = "creating"
    RUNNING = "running"
    STOPPED = "stopped"
    FROZEN = "frozen"
    DESTROYING = "destroying"
    FAILED = "failed"


class Step(StrEnum):
    """What may move a container from one state to another."""

    STARTED = "started"
    LEFT_STOPPED = "left stopped"
    START = "start"
    FREEZE = "freeze"
    THAW = "thaw"
    INIT_ENDED = "init ended"
    DESTROY = "destroy"
    FAIL = "fail"


_ALIVE = (State.CREATING, State.RUNNING, State.STOPPED, State.FROZEN, State.FAILED)

TRANSITIONS: dict[tuple[State, Step], State] = {
    (State.CREATING, Step.STARTED): State.RUNNING,
    (State.CREATING, Step.LEFT_STOPPED): State.STOPPED,
    (State.STOPPED, Step.START): State.RUNNING,
    (State.RUNNING, Step.FREEZE): State.FROZEN,
    (State.FROZEN, Step.THAW): State.RUNNING,
    (State.RUNNING, Step.INIT_ENDED): State.STOPPED,
    (State.FROZEN, Step.INIT_ENDED): State.STOPPED,
    **{(state, Step.DESTROY): State.DESTROYING for state in _ALIVE},
    **{(state, Step.FAIL): State.FAILED for state in _ALIVE},
}

_WAY_OUT = {
    State.CREATING: "wait until it has been created",
    State.RUNNING: "stop it first",
    State.STOPPED: "start it first",
    State.FROZEN: "thaw it first",
    State.DESTROYING: "nothing can be done with it any more",
    State.FAILED: "it can only be destroyed",
}


def target(step: Step) -> State:
    """The state that a step leads to; it is the same from everywhere."""
    return next(to for (_, by), to in TRANSITIONS.items() if by is step)


def sources(step: Step) -> frozenset[State]:
    """The states in which a step is possible."""
    return frozenset(at for at, by in TRANSITIONS if by is step)


def refused(name: str, state: State, verb: str) -> FailedPrecondition:
    """The error for a verb that is not possible in this state."""
    return FailedPrecondition(
        f"Container {name} is {state}: it cannot be {verb}.",
        resolution=f"{_WAY_OUT[state].capitalize()}.",
        reason="WRONG_STATE",
        metadata={"state": str(state)},
    )
