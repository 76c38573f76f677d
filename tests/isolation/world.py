"""Real containers in each relation to one another, in which the two ends of a channel run.

    host
     ├── parent ─┬── child
     │           └── sibling
     └── open          without a seccomp filter, for controls only

Each has the battery's program. The fixture is in conftest.py; what is tried, in `tests.isolation.channels`.
"""

from pathlib import Path

from sysproc_client import Client, Container
from tests.isolation.channels import Control, Relation
from tests.isolation.ends import INSIDE, InContainer, OnHost, Place

# More than any channel wants, and few enough that all can be taken in a moment.
MOST_PROCESSES, MOST_OF_PARENT = 150, 600


class World:
    """The places where ends run."""

    def __init__(self, client: Client, program: Path) -> None:
        parent = client.create(name="parent", pids=MOST_OF_PARENT)
        self.boxes = {
            "parent": parent,
            "child": client.create(name="child", parent=parent, pids=MOST_PROCESSES),
            "sibling": client.create(name="sibling", parent=parent, pids=MOST_PROCESSES),
            "open": client.create(name="open", profile="open", pids=MOST_PROCESSES),
        }
        for box in self.boxes.values():
            equip(box, program)
        self.places: dict[str, Place] = {name: InContainer(box) for name, box in self.boxes.items()}
        self.places["host"] = OnHost(program)

    def target_and_attempt(self, relation: Relation | Control) -> tuple[Place, Place]:
        """Where the two ends are in a relation, or for a control."""
        target, attempt = {
            Relation.PARENT: ("child", "parent"),
            Relation.CHILD: ("parent", "child"),
            Relation.SIBLING: ("sibling", "child"),
            Relation.HOST: ("host", "child"),
            Control.INSIDE: ("child", "child"),
            Control.OPEN: ("open", "open"),
            Control.ON_HOST: ("host", "host"),
            Control.FROM_HOST: ("child", "host"),
        }[relation]
        return self.places[target], self.places[attempt]


def equip(box: Container, program: Path) -> None:
    """Put the program into a container."""
    result = box.run(["sh", "-c", f"cat > {INSIDE} && chmod 755 {INSIDE}"], input=program.read_bytes())
    assert result.exit_code == 0, result.stderr
