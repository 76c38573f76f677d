"""Containers that end by themselves: after their ttl, and when nobody uses them."""

import pytest

from sysproc_client import Client, Container, InvalidArgument
from tests.e2e.daemon import RunningDaemon
from tests.e2e.inside import script_inside
from tests.waiting import wait_until


def gone(client: Client, *boxes: Container) -> bool:
    """Whether none of these is there any more. Asks for none of them: that would be a use."""
    return not {box.id for box in boxes} & {box.id for box in client.list()}


def test_after_its_ttl_a_container_goes_with_all_below(client: Client) -> None:
    other = client.create()
    box = client.create(ttl=1)
    child = client.create(parent=box)
    child.exec(["sleep", "1000"], stdin=False)
    assert box.message.expire_time.ToSeconds() > box.message.create_time.ToSeconds()
    wait_until(lambda: gone(client, box, child), "the ttl is over")
    assert not gone(client, other)


def test_a_ttl_is_extended_and_lifted_by_an_update(client: Client) -> None:
    short, long, lifted = (client.create(ttl=2) for _ in range(3))
    long.update(ttl=3600)
    lifted.update(clear=["ttl"])
    wait_until(lambda: gone(client, short), "the ttl is over")
    assert not gone(client, long)
    assert not lifted.refresh().message.HasField("expire_time")


def test_a_ttl_that_ends_while_there_is_no_daemon_has_ended(client: Client, daemon: RunningDaemon) -> None:
    box, other = client.create(ttl=1), client.create(ttl=3600)
    daemon.kill9()
    daemon.start()
    wait_until(lambda: gone(client, box), "the ttl is over")
    assert not gone(client, other)


def test_a_container_that_nobody_uses_goes(client: Client) -> None:
    box, stopped = client.create(idle_timeout=1), client.create(idle_timeout=1, start=False)
    wait_until(lambda: gone(client, box, stopped), "they were idle for long enough")


def test_a_container_with_a_process_in_it_or_below_is_in_use_until_that_ends(client: Client) -> None:
    own, above, idle = (client.create(idle_timeout=1) for _ in range(3))
    below = client.create(parent=above)
    working = [box.exec(["cat"]) for box in (own, below)]
    for process in working:
        process.stdin.write(b"x")
        assert next(iter(process)).data == b"x"
    wait_until(lambda: gone(client, idle), "one beside them was idle for long enough")
    assert not gone(client, own, above, below)
    for process in working:
        process.stdin.close()
        process.wait()
    wait_until(lambda: gone(client, own, above, below), "they were idle for long enough")


def test_a_call_on_a_container_or_below_is_a_use(client: Client) -> None:
    called, above, idle = (client.create(idle_timeout=2) for _ in range(3))
    below = client.create(parent=above)

    def all_but_idle() -> bool:
        called.refresh()
        below.refresh()
        return gone(client, idle)

    wait_until(all_but_idle, "the one that nobody called was idle for long enough")
    assert not gone(client, called, above, below)


def test_a_container_gives_its_children_a_lifetime(client: Client) -> None:
    box = client.create()
    child = script_inside(box, "answer = client.create(ttl=1).id")
    wait_until(lambda: child not in {one.id for one in client.list()}, "the ttl is over")
    assert not gone(client, box)


@pytest.mark.parametrize("wrong", [{"ttl": 0}, {"ttl": 10**10}, {"idle_timeout": 0.5}])
def test_a_lifetime_that_makes_no_sense_is_refused(client: Client, wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidArgument, match="duration"):
        client.create(**wrong)  # type: ignore[arg-type]  # that is the point
