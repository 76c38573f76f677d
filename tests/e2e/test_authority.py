"""Containers that own containers: what a process inside does through its own socket, and what it does not reach."""

import pytest

from sysproc_client import Client
from tests.e2e.daemon import RunningDaemon
from tests.e2e.inside import script_inside

FAMILY = """
first = client.create(name="first", pids=16)
second = client.create(name="second", parent="first")
done = first.run(["echo", "hello from first"])
answer = [first.id, second.id, client.path("first/second"), done.stdout.decode()]
"""


def test_a_container_makes_children_and_runs_work_in_them(client: Client) -> None:
    box = client.create(name="parent")
    first, second, path, said = script_inside(box, FAMILY)
    assert (path, said) == ("first/second", "hello from first\n")
    assert client.path(second) == "parent/first/second"
    assert (client.get(first).parent_id, client.get(second).parent_id) == (box.id, first)
    assert box.destroy() == [second, first, box.id]


def test_a_list_shows_the_own_subtree_with_oneself_as_its_root(client: Client) -> None:
    uncle, box = client.create(name="uncle"), client.create(name="box")
    child = client.create(name="child", parent=box)
    seen = script_inside(box, "answer = [[one.id, one.parent_id] for one in client.list()]")
    assert seen == [[box.id, ""], [child.id, box.id]]
    assert uncle.id not in str(seen)
    paged = 'answer = [one.id for one in client.get(".").children()]'
    assert script_inside(box, paged) == [child.id]


OUT_OF_REACH = ["PermissionDenied", "OUT_OF_REACH"]


@pytest.mark.parametrize(
    "attempt",
    [
        'client.get("{0}")',
        'client.at("{0}").run(["true"])',
        'client.at("{0}").destroy()',
        'client.at("{0}").doomed()',
        'client.at("{0}").stop()',
        'client.at("{0}").freeze()',
        'client.at("{0}").update(pids=8)',
        'client.create(parent="{0}")',
        'client.at("{0}").children()',
        'client.at("{0}").ps()',
        'client.at("{0}").execs()',
    ],
)
def test_nobody_else_is_reached(client: Client, attempt: str) -> None:
    above = client.create()
    box, sibling = client.create(parent=above), client.create(parent=above)
    for other in (above.id, sibling.id, "00000000deadbeef"):
        assert script_inside(box, attempt.format(other)) == OUT_OF_REACH
    assert {one.id for one in client.list()} == {above.id, box.id, sibling.id}
    assert sibling.run(["true"]).exit_code == 0


def test_a_container_reads_itself_and_runs_commands_in_itself_but_does_not_end_itself(client: Client) -> None:
    box = client.create(name="self")
    assert script_inside(box, 'answer = [client.get(".").id, client.path(".")]') == [box.id, "."]
    assert script_inside(box, 'answer = client.get(".").run(["hostname"]).stdout.decode()') == "self\n"
    for verb in ("destroy", "stop", "freeze", "thaw", "start"):
        assert script_inside(box, f'client.get(".").{verb}()') == OUT_OF_REACH


def test_a_container_lowers_its_own_limits_and_raises_none(client: Client) -> None:
    box = client.create(pids=64, memory="256M", labels={"a": "b"})
    assert script_inside(box, 'answer = client.get(".").update(pids=32).message.limits.pids') == 32
    only_downward = ["PermissionDenied", "ONLY_DOWNWARD"]
    for change in ("pids=33", 'clear=["pids"]', 'clear=["memory"]', 'labels={"x": "y"}', 'memory="257M"'):
        assert script_inside(box, f'client.get(".").update({change})') == only_downward
    assert script_inside(box, 'answer = client.get(".").update(cpus=1).message.limits.cpu_millis') == 1000
    after = client.get(box.id).message
    assert (after.limits.pids, after.limits.memory_bytes, dict(after.labels)) == (32, 256 << 20, {"a": "b"})


def test_whoami_says_what_one_may_do(client: Client) -> None:
    box = client.create(name="me")
    ask = "me = client.whoami(); answer = [me.container_name, me.uid, me.authority, list(me.methods)]"
    name, uid, authority, methods = script_inside(box, ask)
    assert (name, uid, authority) == ("me", 0, True)
    assert "ContainerService/CreateContainer" in methods
    assert "ImageService/ImportImage" not in methods
    assert "ImageService/ImportImage" in client.whoami().methods
    assert script_inside(box, ask, uid=33) == ["me", 33, False, ["SystemService/WhoAmI"]]


def test_authority_goes_on_after_the_daemon_was_killed(client: Client, daemon: RunningDaemon) -> None:
    box = client.create(name="parent")
    daemon.restart()
    assert script_inside(box, FAMILY)[2] == "first/second"


def test_refusals_are_in_the_audit_log(client: Client, daemon: RunningDaemon) -> None:
    box, other = client.create(), client.create()
    script_inside(box, f'client.at("{other.id}").stop()')
    (line,) = [line for line in daemon.log_text().splitlines() if "audit" in line and other.id in line]
    for fact in (f"caller_container={box.id}", "caller_uid=0", "decision=refused", "StopContainer"):
        assert fact in line
