"""Wrong arguments of the SDK: each is InvalidArgument, in words, before anything is sent. No service is there.

What the service says of values that a message can hold is in `tests.e2e`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sysproc_client import Client, InvalidArgument, Unavailable

Act = Callable[[Any], object]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Any]:
    """A client of nobody; typed as anything, since what is tried here no type checker lets through."""
    with Client(f"unix://{tmp_path}/none.sock") as client:
        yield client


@pytest.mark.parametrize(
    "creation",
    [
        {"name": None},
        {"name": 5},
        {"name": "\udc80"},
        {"image": b"busybox"},
        {"hostname": ["h"]},
        {"memory": -1},
        {"memory": 2**70},
        {"memory": 1.5},
        {"memory": "lots"},
        {"memory": True},
        {"cpus": -1},
        {"cpus": "many"},
        {"cpus": float("nan")},
        {"cpus": []},
        {"pids": "5"},
        {"pids": 2**40},
        {"size": object()},
        {"descendants": -1},
        {"ttl": -1},
        {"ttl": float("nan")},
        {"ttl": "soon"},
        {"idle_timeout": 2**80},
        {"labels": {"a": 5}},
        {"labels": {5: "a"}},
        {"labels": ["a"]},
        {"env": {"A": 5}},
        {"env": "A=5"},
        {"profile": "none"},
        {"profile": []},
        {"api_users": "root"},
        {"api_users": [-1]},
        {"api_users": 5},
        {"parent": 5},
        {"parent": ""},
        {"request_id": 5},
    ],
    ids=repr,
)
def test_what_no_message_can_hold_creates_nothing(client: Any, creation: dict[str, object]) -> None:
    refused(lambda: client.create(**creation))


@pytest.mark.parametrize(
    "act",
    [
        lambda client: client.get(None),
        lambda client: client.get(""),
        lambda client: client.path(5),
        lambda client: client.list(labels={"a": 1}),
        lambda client: client.at("x").exec("ls"),
        lambda client: client.at("x").exec(None),
        lambda client: client.at("x").exec([5]),
        lambda client: client.at("x").exec(["ls"], exec_id=5),
        lambda client: client.at("x").exec(["ls"], cwd=5),
        lambda client: client.at("x").exec(["ls"], user="root"),
        lambda client: client.at("x").exec(["ls"], user=(0, -1)),
        lambda client: client.at("x").exec(["ls"], user=(0, 0, 0)),
        lambda client: client.at("x").exec(["ls"], tty=80),
        lambda client: client.at("x").exec(["ls"], tty=(-1, 80)),
        lambda client: client.at("x").exec(["ls"], spool=-1),
        lambda client: client.at("x").exec(["ls"]).resize(-1, 80),
        lambda client: client.at("x").exec(["ls"]).resize("24", 80),
        lambda client: client.at("x").exec(["ls"]).signal(-9),
        lambda client: client.at("x").exec(["ls"]).signal("SIGTERM"),
        lambda client: client.at("x").run(["ls"], input="text"),
        lambda client: client.at("x").run(["ls"], timeout="soon"),
        lambda client: client.at("x").run(["ls"], env=[("A", "b")]),
        lambda client: client.at("x").stop(grace=-1),
        lambda client: client.at("x").update(memory=-1),
        lambda client: client.at("x").update(labels={"a": None}),
        lambda client: client.at("x").update(clear=["everything"]),
        lambda client: client.at("x").update(etag=5),
        lambda client: client.images.delete(None),
        lambda client: client.images.import_(5, "/dev/null"),
        lambda client: client.images.import_("x", 5),
        lambda _: Client("http://x"),
        lambda _: Client("unix:"),
        lambda _: Client("unix://relative"),
        lambda _: Client("unix:///" + "x" * 107),
        lambda _: Client("unix:///a\0b"),
        lambda _: Client(5),  # type: ignore[arg-type]  # that is the point
    ],
)
def test_a_wrong_argument_is_told_before_anything_is_sent(client: Any, act: Act) -> None:
    refused(lambda: act(client))


def refused(act: Callable[[], object]) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        act()
    assert refusal.value.message and refusal.value.resolution and refusal.value.reason.startswith("BAD_")


def test_what_is_right_is_sent(client: Any) -> None:
    with pytest.raises(Unavailable, match="no such socket"):
        client.create(name="a", memory="1M", cpus=1, pids=5, labels={"a": "b"}, env={"A": b"b"}, api_users=[3], ttl=1.5)
    with pytest.raises(Unavailable, match="no such socket"):
        client.at("x").run(("ls", b"-l"), input=b"x", user=(1, 2), timeout=5)


def test_the_longest_path_of_a_socket_is_one(tmp_path: Path) -> None:
    path = f"{tmp_path}/".ljust(107, "x")
    with Client(f"unix://{path}") as client, pytest.raises(Unavailable, match="no such socket"):
        client.list()
