"""A container's API socket answers its own container only, and nothing inside names what the host keeps.

The socket is tried as if somebody had passed it on; how is in `tests.isolation.calling_elsewhere`. The section
`service` of docs/ISOLATION.md is written when all of it was tried.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sysproc_client import Container
from tests.e2e.daemon import RunningDaemon
from tests.isolation.channels import Relation
from tests.isolation.ends import Place
from tests.isolation.page import table, write_section
from tests.isolation.world import World

ROOT = Path(__file__).parents[2]
INSIDE = "run/sysproc/sysproc.sock"
BETWEEN = {
    Relation.PARENT: ("parent", "child"),
    Relation.CHILD: ("child", "parent"),
    Relation.SIBLING: ("child", "sibling"),
    Relation.HOST: ("child", "host"),
}


def init_of(box: Container) -> int:
    """Its pid on the host."""
    return int(next(one.host_pid for one in box.ps() if one.pid == 1))


def answer(caller: Container, socket: str) -> str:
    """What a process of a container is told at a socket."""
    command = [sys.executable, "-m", "tests.isolation.calling_elsewhere", str(init_of(caller)), socket]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def cells() -> Iterator[dict[Relation, str]]:
    """What came of the socket; written when all relations have been tried."""
    collected: dict[Relation, str] = {}
    yield collected
    if len(collected) == len(BETWEEN):
        head = ("channel", *(relation.value for relation in Relation), "wall", "control")
        closed = (collected[relation] for relation in Relation)
        row = ("API socket of another, passed on", *closed, "the peer's cgroup", "its own socket answers")
        write_section("service", table(head, [row]))


def test_its_own_socket_answers(world: World) -> None:
    box = world.boxes["child"]
    assert answer(box, f"/proc/{init_of(box)}/root/{INSIDE}").startswith(f"OK {box.id} ")


@pytest.mark.parametrize("relation", Relation, ids=lambda relation: relation.name.lower())
def test_no_other_socket_answers(
    relation: Relation, world: World, daemon: RunningDaemon, cells: dict[Relation, str]
) -> None:
    caller, owner = BETWEEN[relation]
    host = daemon.endpoint.removeprefix("unix://")
    socket = host if owner == "host" else f"/proc/{init_of(world.boxes[owner])}/root/{INSIDE}"
    assert not answer(world.boxes[caller], socket).startswith("OK")
    cells[relation] = "closed"


def found(place: Place, *needles: str) -> set[str]:
    """Which of these texts stand in anything readable below /proc, /sys, or in filesystems mounted for the purpose."""
    learned: set[str] = set()
    for channel in ("everything-in-proc-and-sys", "everything-in-fresh-mounts"):
        with place.start(["attempt", channel, "0" * 8, *(f"needle={needle}" for needle in needles)]) as end:
            end.listen()
            assert not end.all("absent")
            learned.update(end.all("learned"))
    return learned


def test_nothing_that_can_be_read_names_what_the_host_keeps(world: World, daemon: RunningDaemon) -> None:
    names = (str(daemon.directory), daemon.cgroup_root, *(box.id for box in world.boxes.values()))
    assert found(world.places["child"], *names) == set()


def test_the_search_finds_what_is_there(world: World) -> None:
    name = world.boxes["child"].run(["hostname"]).stdout.decode().strip()
    assert found(world.places["child"], name, "no such text") == {name}
