"""What containers may have below them, asked for from the host and from inside; what is used of it comes back."""

import pytest

from sysproc_client import Client, Container, FailedPrecondition, LimitExceeded
from tests.e2e.conftest import Sysproc
from tests.e2e.inside import script_inside

REFUSED = ["LimitExceeded", "LIMIT_EXCEEDED"]


def test_a_container_gives_its_children_no_more_than_it_has(client: Client) -> None:
    box = client.create(memory="64M", cpus=0.5, pids=64)
    for asked in ('memory="65M"', "cpus=0.6", "pids=65"):
        assert script_inside(box, f"client.create({asked})") == REFUSED
    child = script_inside(box, 'answer = client.create(memory="64M", cpus=0.5, pids=64).id')
    assert script_inside(box, f'client.at("{child}").update(pids=65)') == REFUSED
    assert [one.id for one in client.list()] == [box.id, child]


def test_a_tree_grows_to_its_bounds_and_again_when_something_of_it_is_gone(client: Client) -> None:
    box = client.create(descendants=2, depth=1)
    script = """
first = client.create()
try:
    client.create(parent=first)
except SysprocError as error:
    answer = str(error)
second = client.create()
"""
    assert "above yours" not in script_inside(box, script)
    assert script_inside(box, "client.create()") == REFUSED
    assert script_inside(box, "client.list()[1].destroy(); answer = client.create().state") == "running"


def test_storage_counts_roots_and_the_output_of_processes(client: Client) -> None:
    box = client.create(size="32M", storage="100M")
    with pytest.raises(LimitExceeded, match=f"{100 << 20} bytes of storage, of which {32 << 20} are used"):
        client.create(parent=box, size="69M")
    child = client.create(parent=box, size="32M")
    running = child.exec(["cat"], spool="16M")
    output = iter(running)
    running.stdin.write(b"x")
    assert next(output).data == b"x"
    with pytest.raises(LimitExceeded, match="more do not fit"):
        child.run(["true"])
    running.stdin.close()
    for _ in output:
        pass
    assert child.run(["true"]).exit_code == 0, "what has ended counts for what is left of it"


def test_only_the_host_promises_more_than_there_is(client: Client) -> None:
    box = client.create(size="32M", storage="64M")
    script = 'client.create(size="64M", overcommit=True)'
    assert script_inside(box, script) == ["PermissionDenied", "OVERCOMMIT"]
    assert client.create(parent=box, size="64M", overcommit=True).state == "running"
    with pytest.raises(LimitExceeded, match="host's disk"):
        client.create(size="15T")


def test_a_parents_limits_are_lowered_below_those_of_living_children_and_raised_again(client: Client) -> None:
    parent = client.create(pids=64, cpus=2, memory="128M")
    child = client.create(parent=parent, pids=64, cpus=2, memory="128M")
    parent.update(pids=12, cpus=0.1, memory="64M")
    forks = ["sh", "-c", "for i in $(seq 20); do sleep 1000 & done; kill $(jobs -p)"]
    assert b"fork" in child.run(forks, timeout=30).stderr
    parent.update(pids=64, cpus=2, memory="128M")
    assert b"fork" not in child.run(forks, timeout=30).stderr
    with pytest.raises(FailedPrecondition, match="there are 1"):
        parent.update(descendants=0)


def test_more_children_than_a_container_may_have_processes_are_refused_as_a_limit(client: Client) -> None:
    box = client.create(pids=6)
    born: list[Container] = []
    with pytest.raises(LimitExceeded, match="as many processes as it may"):
        born.extend(client.create(parent=box) for _ in range(6))
    assert len(born) >= 3
    born[0].destroy()
    assert client.create(parent=box).run(["true"]).exit_code == 0


def test_users_that_were_named_have_authority_inside(client: Client) -> None:
    box = client.create(api_users=[33])
    ask = "answer = client.whoami().authority"
    assert [script_inside(box, ask, uid) for uid in (0, 33, 34)] == [True, True, False]
    everyone = client.create(api_users="all")
    assert script_inside(everyone, "answer = client.create().state", 1234) == "running"


def test_the_command_sets_and_shows_them(sysproc: Sysproc, client: Client) -> None:
    made = sysproc(
        "create", "--descendants", "3", "--depth", "2", "--storage", "2G", "--api-users", "33", "--ttl", "1h"
    )
    box = made.stdout.decode().strip()
    told = client.get(box).message
    assert (told.limits.descendants, told.limits.depth, told.limits.storage_bytes) == (3, 2, 2 << 30)
    assert told.ttl.seconds == 3600
    assert sysproc("update", box, "--depth", "none", "--ttl", "none", "--descendants", "9").returncode == 0
    told = client.get(box).message
    assert (told.limits.descendants, told.limits.HasField("depth"), told.HasField("ttl")) == (9, False, False)
    for wrong in (("--ttl", "soon"), ("--api-users", "root"), ("--depth", "-1"), ("--storage", "much")):
        refused = sysproc("create", *wrong)
        assert refused.returncode != 0
        assert b"Traceback" not in refused.stderr
