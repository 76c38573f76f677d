"""The tree that `sysproc tree` draws and prints as JSON."""

from typing import Any, cast

from nightos.sysproc.v1.container_pb2 import Container as Message
from sysproc_client.cli.containers import drawn, nested
from sysproc_client.container import Container


def boxes(*pairs: tuple[int, int]) -> list[Container]:
    """Containers of these ids and parents."""
    nobody = cast(Any, None)
    return [Container(nobody, Message(id=number, parent_id=parent)) for number, parent in pairs]


def test_lines_lead_from_each_to_what_is_below_it() -> None:
    lines = [f"{guide}{int(box.id, 16)}" for guide, box in drawn(boxes((1, 0), (2, 1), (3, 0), (4, 2), (5, 1), (6, 3)))]
    assert lines == ["├── 1", "│   ├── 2", "│   │   └── 4", "│   └── 5", "└── 3", "    └── 6"]


def test_what_lies_below_one_that_is_not_shown_is_at_the_top() -> None:
    assert [guide for guide, _ in drawn(boxes((7, 5), (8, 7)))] == ["└── ", "    └── "]
    assert [one["children"][0]["id"] for one in nested(boxes((7, 5), (8, 7)))] == [f"{8:016x}"]


def test_of_nothing_nothing_is_drawn() -> None:
    assert (list(drawn([])), nested([])) == ([], [])


def test_as_deep_as_can_be() -> None:
    chain = boxes(*((number, number - 1) for number in range(1, 2000)))
    assert len(list(drawn(chain))) == 1999
