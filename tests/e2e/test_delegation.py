"""A container that divides its own part of the cgroups; where the host has no version 2 alone, a clear refusal."""

import pytest

from sysproc.isolation.cgroups import CgroupMode
from sysproc.isolation.cgroups.hierarchies import find
from sysproc_client import Client, Container, Unimplemented
from tests.e2e.daemon import RunningDaemon
from tests.e2e.inside import caller_inside

UNIFIED = find().mode is CgroupMode.UNIFIED
needs_version_2 = pytest.mark.skipif(not UNIFIED, reason="only cgroup version 2 alone can be delegated; the VM has it")

# As systemd does: init's group first, then controllers for those beside it.
DIVIDE = """
set -e
cd /sys/fs/cgroup
mkdir init.scope work procs
echo 1 > init.scope/cgroup.procs
# One that has ended meanwhile need not be moved.
for pid in $(cat cgroup.procs); do echo $pid > init.scope/cgroup.procs 2>/dev/null || :; done
echo '+memory +pids' > cgroup.subtree_control
echo 8 > work/pids.max
"""


@pytest.mark.skipif(UNIFIED, reason="this host can delegate")
def test_where_it_cannot_be_it_is_refused_and_leaves_nothing(client: Client) -> None:
    with pytest.raises(Unimplemented, match="cannot delegate"):
        client.create(delegate=True)
    assert client.list() == []


@pytest.fixture
def divided(client: Client) -> Container:
    """A container that has divided its part."""
    box = client.create(delegate=True, pids=64, name="divided")
    done = box.run(["sh", "-c", DIVIDE])
    assert done.exit_code == 0, done.stderr
    return box


@needs_version_2
def test_its_root_makes_groups_with_limits_that_hold(divided: Container) -> None:
    join = "echo $$ > /sys/fs/cgroup/work/cgroup.procs && "
    forks = "for i in $(seq 20); do sleep 1000 & done; kill $(jobs -p)"
    assert b"fork" in divided.run(["sh", "-c", join + forks]).stderr
    assert b"fork" not in divided.run(["sh", "-c", forks]).stderr


@needs_version_2
def test_commands_are_run_in_it_all_the_same_and_are_beside_init(divided: Container) -> None:
    assert divided.run(["cat", "/proc/self/cgroup"]).stdout == b"0::/init.scope\n"


@needs_version_2
@pytest.mark.parametrize("group", ["work", "procs/work/procs"])
def test_who_calls_is_known_from_any_group_that_it_makes(divided: Container, group: str) -> None:
    """Also where it is called as ours are: the first `procs` counts, which it does not reach."""
    command = f"mkdir -p /sys/fs/cgroup/{group} && echo $$ > /sys/fs/cgroup/{group}/cgroup.procs && echo in && cat"
    staying = divided.exec(["sh", "-c", command])
    assert next(iter(staying)).data == b"in\n"
    (pid,) = [one.host_pid for one in divided.ps() if one.argv and one.argv[0] == b"cat"]
    ask = "answer = [client.whoami().container_name, len(client.list())]"
    assert caller_inside(pid, 0, ask) == ["divided", 1]


@needs_version_2
def test_its_own_limits_are_not_its_to_change(divided: Container) -> None:
    names = "memory.max pids.max cpu.max cgroup.freeze cgroup.kill cgroup.max.descendants"
    script = f"for name in {names}; do echo 1 > /sys/fs/cgroup/$name && echo $name; done"
    assert divided.run(["sh", "-c", script]).stdout == b""


@needs_version_2
def test_without_delegation_nothing_can_be_made(client: Client) -> None:
    assert client.create().run(["mkdir", "/sys/fs/cgroup/mine"]).exit_code != 0


@needs_version_2
def test_it_is_frozen_stopped_started_and_destroyed_with_all_groups(divided: Container) -> None:
    stay = "echo $$ > /sys/fs/cgroup/work/cgroup.procs && echo in && exec sleep 1000"
    staying = divided.exec(["sh", "-c", stay], stdin=False)
    assert next(iter(staying)).data == b"in\n"
    divided.freeze()
    divided.thaw()
    divided.stop(grace=0)
    assert divided.start().run(["sh", "-c", "ls -d /sys/fs/cgroup/work"]).exit_code != 0
    assert divided.destroy() == [divided.id]


@needs_version_2
def test_it_goes_on_after_the_daemon_was_killed(daemon: RunningDaemon, divided: Container) -> None:
    daemon.restart()
    assert divided.run(["cat", "/proc/self/cgroup"]).stdout == b"0::/init.scope\n"
