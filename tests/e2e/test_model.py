"""Random lives of random trees against a model: what the service says is what has been done, also after kill -9.

The model knows a container's parent, its state, whether it is frozen from above, and what was written into its root.
"""

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sysproc_client import Client, FailedPrecondition
from tests.e2e.daemon import RunningDaemon

DEEPEST = 4


@dataclass
class Known:
    """One container as it should be."""

    id: str
    parent: "Known | None"
    state: str
    written: str = ""
    children: "list[Known]" = field(default_factory=list)

    @property
    def frozen(self) -> bool:
        """By itself or from above."""
        return self.state == "frozen" or (self.parent is not None and self.parent.frozen)

    @property
    def depth(self) -> int:
        """1 for one at the top."""
        return 1 + (self.parent.depth if self.parent else 0)

    def subtree(self) -> "list[Known]":
        """Itself and all below."""
        return [self, *(one for child in self.children for one in child.subtree())]


class Trees(RuleBasedStateMachine):
    """See the module's docstring; `daemon` is set by the test."""

    daemon: RunningDaemon
    containers = Bundle("containers")

    def __init__(self) -> None:
        super().__init__()
        self.client = Client(self.daemon.endpoint)
        self.known: dict[str, Known] = {}

    def teardown(self) -> None:
        for one in [one for one in self.known.values() if one.parent is None]:
            self.client.at(one.id).destroy()
        assert self.client.list() == []
        self.client.close()

    # -- create, destroy

    @rule(target=containers, start=st.booleans())
    def create(self, start: bool) -> Known:
        """At the top of the tree."""
        return self.make(None, start)

    @rule(target=containers, parent=containers, start=st.booleans())
    def create_child(self, parent: Known, start: bool) -> "Known | MultipleResults[Known]":
        """Below another, whatever state that is in."""
        if parent.id not in self.known or parent.depth == DEEPEST:
            return multiple()
        if start and parent.frozen:
            with pytest.raises(FailedPrecondition, match="frozen"):
                self.client.create(parent=parent.id)
            return multiple()
        return self.make(parent, start)

    def make(self, parent: Known | None, start: bool) -> Known:
        """Create it there and here."""
        box = self.client.create(parent=parent.id if parent else None, start=start)
        made = Known(box.id, parent, "running" if start else "stopped")
        self.known[made.id] = made
        if parent:
            parent.children.append(made)
        return made

    @rule(one=consumes(containers))
    def destroy(self, one: Known) -> None:
        """With all that is below it; nothing of it can be used afterwards."""
        if one.id not in self.known:
            return
        gone = self.client.at(one.id).destroy()
        assert sorted(gone) == sorted(each.id for each in one.subtree())
        assert gone[-1] == one.id
        for each in one.subtree():
            del self.known[each.id]
        if one.parent:
            one.parent.children.remove(one)

    # -- states

    @rule(one=containers)
    def start(self, one: Known) -> None:
        """Idempotent while it runs."""
        self.change(one, "start", {"running": "running", "stopped": None if one.frozen else "running"})

    @rule(one=containers)
    def stop(self, one: Known) -> None:
        """Not what is below it."""
        self.change(one, "stop", dict.fromkeys(("running", "frozen", "stopped"), "stopped"), grace=0.0)

    @rule(one=containers)
    def freeze(self, one: Known) -> None:
        """With all that is below it."""
        self.change(one, "freeze", {"running": "frozen", "frozen": "frozen"})

    @rule(one=containers)
    def thaw(self, one: Known) -> None:
        """Below a frozen one it says that it runs, and does not."""
        self.change(one, "thaw", {"running": "running", "frozen": "running"})

    def change(self, one: Known, verb: str, leads_to: "dict[str, str | None]", **options: float) -> None:
        """Do it, or see it refused where the model says so."""
        if one.id not in self.known:
            return
        expected = leads_to.get(one.state)
        if expected is None:
            with pytest.raises(FailedPrecondition):
                getattr(self.client.at(one.id), verb)(**options)
        else:
            getattr(self.client.at(one.id), verb)(**options)
            one.state = expected

    # -- use

    @rule(one=containers, text=st.text("abc", min_size=1, max_size=5))
    def use(self, one: Known, text: str) -> None:
        """What an earlier process has written is there, and only here."""
        if one.id not in self.known:
            return
        command = ["sh", "-c", f"cat /written 2>/dev/null; printf {text} > /written"]
        if one.state != "running" or one.frozen:
            with pytest.raises(FailedPrecondition):
                self.client.at(one.id).run(command)
            return
        assert self.client.at(one.id).run(command).stdout.decode() == one.written
        one.written = text

    # -- crashes

    @precondition(lambda self: self.known)
    @rule()
    def kill_the_daemon(self) -> None:
        """And start it again: nothing has changed."""
        self.daemon.kill9()
        self.daemon.start()

    @precondition(lambda self: self.known)
    @rule()
    def kill_the_launcher(self) -> None:
        """Another one is started when one is needed."""
        self.daemon.kill_launcher()

    @invariant()
    def the_service_says_the_same(self) -> None:
        """Every container, its parent and its state."""
        said = {box.id: (box.parent_id, box.state) for box in self.client.list()}
        assert said == {one.id: (one.parent.id if one.parent else "", one.state) for one in self.known.values()}


def test_random_trees_are_what_the_model_says(daemon: RunningDaemon) -> None:
    Trees.daemon = daemon
    limits = settings(
        max_examples=8,
        stateful_step_count=25,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    run_state_machine_as_test(Trees, settings=limits)
