"""Real containers in each relation to one another, in which the two ends of a channel run.

    host
     ├── parent ─┬── child              with the parent's volume, to write
     │           └── sibling            with the parent's volume, to read only
     ├── open          without a seccomp filter, for controls only
     └── trusting      with a volume whose set-uid programs count, for controls only

Each has the battery's program. The fixture is in conftest.py; what is tried, in `tests.isolation.channels` and
`tests.isolation.volume_channels`: so all channels are tried with a volume attached.
"""

from collections.abc import Mapping
from pathlib import Path

from sysproc_client import Client, Container
from tests.isolation.channels import Control, Relation
from tests.isolation.ends import INSIDE, InContainer, OnHost, Place
from tests.isolation.volume_channels import Sharing

# More than any channel wants, and few enough that all can be taken in a moment.
MOST_PROCESSES, MOST_OF_PARENT = 150, 600
VOLUME = "/volume"
# What all ends find in a volume (tests/isolation/native/volumes.h).
OURS = f"cd {VOLUME} && chmod 755 . && head -c 8192 /dev/zero >ours && mkfifo fifo && chmod 666 ours fifo"


class World:
    """The places where ends run."""

    def __init__(self, client: Client, program: Path) -> None:
        parent = client.create(name="parent", pids=MOST_OF_PARENT)
        self.boxes = {
            "parent": parent,
            "child": client.create(name="child", parent=parent, pids=MOST_PROCESSES),
            "sibling": client.create(name="sibling", parent=parent, pids=MOST_PROCESSES),
            "open": client.create(name="open", profile="open", pids=MOST_PROCESSES),
            "trusting": client.create(name="trusting", pids=MOST_PROCESSES),
        }
        for box in self.boxes.values():
            equip(box, program)
        share_volumes(client, self.boxes)
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
            Control.SUID: ("trusting", "trusting"),
        }[relation]
        return self.places[target], self.places[attempt]

    def owner_and_other(self, sharing: Sharing) -> tuple[Place, Place]:
        """Two containers with one volume."""
        other = {Sharing.BOTH_WRITE: "child", Sharing.ONE_READS: "sibling"}[sharing]
        return self.places["parent"], self.places[other]


def equip(box: Container, program: Path) -> None:
    """Put the program into a container."""
    result = box.run(["sh", "-c", f"cat > {INSIDE} && chmod 755 {INSIDE}"], input=program.read_bytes())
    assert result.exit_code == 0, result.stderr


def share_volumes(client: Client, boxes: Mapping[str, Container]) -> None:
    """The parent's, in all of its tree; and one more for itself."""
    shared = client.volumes.create("shared", size="32M", owner=boxes["parent"])
    for name in ("parent", "child"):
        shared.mount(boxes[name], VOLUME)
    shared.mount(boxes["sibling"], VOLUME, read_only=True)
    trusted = client.volumes.create("trusted", size="32M", owner=boxes["trusting"])
    trusted.mount(boxes["trusting"], VOLUME, suid=True)
    for name in ("parent", "trusting"):
        result = boxes[name].run(["sh", "-c", OURS])
        assert result.exit_code == 0, result.stderr
