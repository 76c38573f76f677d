"""Keys of several areas of one file: all tried before one is changed; what a cut has left is done by doing it again."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sysproc.errors import FailedPrecondition, NotFound
from sysproc.storage.decrypted.key_work import ADD, CHANGE, check, remove, replace, slot_of, slots
from sysproc.storage.luks.refusals import WrongKey
from sysproc.storage.luks.region import Region
from sysproc.storage.luks.volume import add_key, change_key, format_volume, remove_key
from tests.unit.storage.luks.volumes import CHEAP, SIZE

FIRST, SECOND, THIRD = memoryview(b"first"), memoryview(b"second"), memoryview(b"third")


@pytest.fixture
def areas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Region]]:
    """Two, with the same key; what argon2 costs is little."""
    monkeypatch.setattr("sysproc.storage.luks.volume.measured_cost", lambda: CHEAP)
    fd = os.open(tmp_path / "volume", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.ftruncate(fd, 2 * SIZE)
    made = [Region(fd, 0, SIZE), Region(fd, SIZE, SIZE)]
    for area in made:
        format_volume(area, FIRST)
    yield made
    os.close(fd)


def opening(areas: list[Region]) -> list[str]:
    """Which of the secrets open each area."""
    known = {"1": FIRST, "2": SECOND, "3": THIRD}
    return ["".join(name for name, one in known.items() if slot_of(area, one) is not None) for area in areas]


def test_all_areas_get_the_same_keys(areas: list[Region]) -> None:
    replace(ADD, areas, FIRST, SECOND)
    assert opening(areas) == ["12", "12"]
    replace(CHANGE, areas, FIRST, THIRD)
    assert opening(areas) == ["23", "23"]
    remove(areas, SECOND, None)
    assert opening(areas) == ["3", "3"]


@pytest.mark.parametrize("verb", [ADD, CHANGE])
def test_a_secret_that_opens_only_some_of_them_changes_none(areas: list[Region], verb: str) -> None:
    change_key(areas[1], FIRST, THIRD)
    with pytest.raises(WrongKey):
        replace(verb, areas, FIRST, SECOND)
    assert opening(areas) == ["1", "3"]


def test_what_was_cut_between_two_areas_is_finished_by_doing_it_again(areas: list[Region]) -> None:
    add_key(areas[0], FIRST, SECOND)
    replace(ADD, areas, FIRST, SECOND)
    assert opening(areas) == ["12", "12"] and [len(slots(area)) for area in areas] == [2, 2]
    change_key(areas[0], FIRST, THIRD)
    replace(CHANGE, areas, FIRST, THIRD)
    assert opening(areas) == ["23", "23"]
    remove_key(areas[0], slot_of(areas[0], SECOND) or 0)
    remove(areas, SECOND, None)
    assert opening(areas) == ["3", "3"]


def test_the_last_key_of_any_area_stays_and_so_do_the_others(areas: list[Region]) -> None:
    add_key(areas[0], FIRST, SECOND)
    with pytest.raises(FailedPrecondition) as refused:
        remove(areas, FIRST, None)
    assert refused.value.reason == "LAST_KEY" and opening(areas) == ["12", "1"]


def test_a_slot_goes_for_who_has_another_key_and_only_then(areas: list[Region]) -> None:
    replace(ADD, areas, FIRST, SECOND)
    with pytest.raises(WrongKey):
        remove(areas, THIRD, 0)
    with pytest.raises(NotFound):
        remove(areas, SECOND, 9)
    remove(areas, SECOND, 0)
    assert opening(areas) == ["2", "2"]


def test_a_secret_that_opens_all_is_told_from_one_that_does_not_and_nothing_is_changed(areas: list[Region]) -> None:
    change_key(areas[1], FIRST, SECOND)
    add_key(areas[1], SECOND, THIRD)
    add_key(areas[0], FIRST, THIRD)
    before = os.pread(areas[0].fd, 2 * SIZE, 0)
    check(areas, THIRD)
    with pytest.raises(WrongKey):
        check(areas, FIRST)
    assert os.pread(areas[0].fd, 2 * SIZE, 0) == before
