"""In which order a dying subtree goes: the deepest first, and nobody waits for one that does not end."""

from collections.abc import Mapping
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysproc.deepest_first import DeepestFirst
from sysproc.storage.hierarchy import ContainerRow


class Row:
    def __init__(self, number: int, parent_id: int | None) -> None:
        self.id, self.parent_id = number, parent_id


def doomed_of(parents: Mapping[int, int | None]) -> list[ContainerRow]:
    """Deepest first; the top is 1, and its parent, 99, is not doomed."""

    def depth(number: int) -> int:
        above = parents[number]
        return 0 if above is None or above not in parents else 1 + depth(above)

    rows = sorted(parents, key=lambda number: (-depth(number), number))
    return [cast("ContainerRow", Row(number, parents[number])) for number in rows]


def ids(rows: list[ContainerRow]) -> list[int]:
    return [row.id for row in rows]


PARENTS: dict[int, int | None] = {1: 99, 2: 1, 3: 1, 4: 2, 5: 4}


def test_what_is_less_deep_waits_while_something_deeper_is_left() -> None:
    doomed = doomed_of(PARENTS)
    order = DeepestFirst(doomed)
    for row in doomed[1:]:
        order.ended(row)
    assert order.take(8) == [], "5 has not ended, and is deeper than 3"
    order.ended(doomed[0])
    assert ids(order.take(8)) == [5]


def test_when_one_is_overdue_only_what_is_above_it_waits() -> None:
    doomed = doomed_of(PARENTS)
    order = DeepestFirst(doomed)
    for row in doomed[1:]:
        order.ended(row)
    order.overdue()
    assert ids(order.take(8)) == [3]
    assert ids(order.waiting()) == [5]


def test_what_is_above_one_that_failed_stays_and_then_it_is_over() -> None:
    doomed = doomed_of(PARENTS)
    order = DeepestFirst(doomed)
    for row in doomed:
        order.ended(row)
    order.failed(order.take(8)[0])
    (three,) = order.take(8)
    order.gone(three)
    assert three.id == 3
    assert order.over


def test_one_in_which_somebody_is_left_has_its_turn_again() -> None:
    (row,) = doomed_of({1: None})
    order = DeepestFirst([row])
    order.ended(row)
    assert order.take(8) == [row]
    order.again(row)
    assert order.take(8) == []
    order.ended(row)
    assert order.take(8) == [row]
    order.gone(row)
    assert order.over


@pytest.mark.parametrize("most", [1, 3, 16])
@given(data=st.data())
def test_children_always_go_before_their_parents_and_all_go(most: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 30))
    doomed = doomed_of({1: 99} | {number: data.draw(st.integers(1, number - 1)) for number in range(2, count + 1)})
    order, gone = DeepestFirst(doomed), list[int]()
    for row in data.draw(st.permutations(doomed)):
        order.ended(row)
        while batch := order.take(most):
            for one in batch:
                order.gone(one)
                gone.append(one.id)
    assert order.over
    assert sorted(gone) == sorted(ids(doomed))
    assert all(gone.index(row.id) < gone.index(row.parent_id) for row in doomed[:-1] if row.parent_id is not None)
