"""Encrypted volumes: made, opened, given other keys; wrong ones are told."""

import fcntl
import os

import pytest

from sysproc.errors import FailedPrecondition, InvalidArgument, NotFound, SysprocError, Unavailable
from sysproc.storage.luks.bounds import MOST_KEY_BYTES
from sysproc.storage.luks.headers import PRIMARY, SECONDARY
from sysproc.storage.luks.key_derivation import Cost, measured_cost
from sysproc.storage.luks.refusals import NotEncrypted, WrongKey
from sysproc.storage.luks.volume import add_key, change_key, format_volume, open_volume, remove_key, unlock
from tests.unit.storage.luks.volumes import CHEAP, SIZE, opens, region, volume

FIRST, SECOND = memoryview(b"first"), memoryview(b"second")


def test_the_passphrase_that_made_it_opens_it() -> None:
    with volume() as made:
        assert len(opens(made, b"first")) == 64


def test_another_passphrase_is_refused_and_told_so() -> None:
    with volume() as made, pytest.raises(WrongKey) as refused:
        opens(made, b"First")
    assert refused.value.reason == "WRONG_SECRET"


def test_two_volumes_have_keys_and_names_of_their_own() -> None:
    with volume() as one, volume() as other:
        assert opens(one, b"first") != opens(other, b"first")
        assert open_volume(one).uuid != open_volume(other).uuid


def test_it_begins_where_it_is_put_and_touches_nothing_before() -> None:
    with volume(offset=1 << 20) as made:
        assert os.pread(made.fd, 1 << 20, 0) == bytes(1 << 20)
        assert os.pread(made.fd, 6, 1 << 20) == PRIMARY
        assert opens(made, b"first")


@pytest.mark.parametrize("key", [b"\0", b"\n", bytes(range(256)) * 100])
def test_a_key_file_is_any_bytes(key: bytes) -> None:
    with volume(key) as made:
        assert opens(made, key)


@pytest.mark.parametrize("key", [b"", bytes(MOST_KEY_BYTES + 1)])
def test_no_key_at_all_and_one_without_end_are_refused(key: bytes) -> None:
    with volume() as made, pytest.raises(InvalidArgument):
        add_key(made, FIRST, memoryview(key), cost=CHEAP)


def test_an_added_key_opens_the_same_data() -> None:
    with volume() as made:
        before = opens(made, b"first")
        add_key(made, FIRST, SECOND, cost=CHEAP)
        assert opens(made, b"first") == opens(made, b"second") == before


def test_a_changed_key_opens_and_the_old_one_does_not() -> None:
    with volume() as made:
        before = opens(made, b"first")
        change_key(made, FIRST, SECOND, cost=CHEAP)
        assert opens(made, b"second") == before
        with pytest.raises(WrongKey):
            opens(made, b"first")


def test_who_has_no_key_adds_none() -> None:
    with volume() as made:
        for change in (add_key, change_key):
            with pytest.raises(WrongKey):
                change(made, SECOND, SECOND, cost=CHEAP)


def test_a_removed_key_opens_nothing_and_its_material_is_gone() -> None:
    with volume() as made:
        number = add_key(made, FIRST, SECOND, cost=CHEAP)
        area = open_volume(made).metadata.slots[number].area
        assert made.read(area.offset, area.size).strip(b"\0")
        remove_key(made, number)
        assert not made.read(area.offset, area.size).strip(b"\0")
        with pytest.raises(WrongKey):
            opens(made, b"second")


def test_the_last_key_stays() -> None:
    with volume() as made:
        with pytest.raises(FailedPrecondition) as refused:
            remove_key(made, 0)
        assert refused.value.reason == "LAST_KEY"
        assert opens(made, b"first")


def test_a_slot_that_is_not_there_is_not_found() -> None:
    with volume() as made:
        with pytest.raises(NotFound):
            remove_key(made, 5)
        with pytest.raises(NotFound):
            unlock(made, open_volume(made), FIRST, slot=5)


def test_there_are_thirty_two_keys_and_no_more() -> None:
    with volume() as made:
        for number in range(1, 32):
            assert add_key(made, FIRST, memoryview(b"%d" % number), cost=CHEAP) == number
        with pytest.raises(SysprocError) as refused:
            add_key(made, FIRST, SECOND, cost=CHEAP)
        assert refused.value.reason == "NO_FREE_KEY_SLOT"
        assert opens(made, b"31") == opens(made, b"first")


def test_only_one_changes_keys_at_a_time() -> None:
    with volume() as made:
        other = os.open(f"/proc/self/fd/{made.fd}", os.O_RDONLY)
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Unavailable):
            add_key(made, FIRST, SECOND, cost=CHEAP)
        os.close(other)
        assert add_key(made, FIRST, SECOND, cost=CHEAP) == 1


@pytest.mark.parametrize("at", [0, 20, 100, 4096, 5000, 16383])
@pytest.mark.parametrize("copy", [0, 16384])
def test_one_damaged_copy_of_the_header_is_made_up_by_the_other_and_repaired(at: int, copy: int) -> None:
    with volume() as made:
        before = opens(made, b"first")
        made.write(copy + at, bytes([made.read(copy + at, 1)[0] ^ 1]))
        assert opens(made, b"first") == before
        assert open_volume(made).stale == (SECONDARY if copy else PRIMARY)
        add_key(made, FIRST, SECOND, cost=CHEAP)
        assert open_volume(made).stale is None
        assert opens(made, b"second") == before


def test_two_damaged_copies_are_data_lost() -> None:
    with volume() as made:
        for copy in (0, 16384):
            made.write(copy + 5000, b"x")
        with pytest.raises(SysprocError) as refused:
            open_volume(made)
        assert refused.value.reason == "LUKS_HEADER_REFUSED"


@pytest.mark.parametrize("size", [0, 1, 4096, SIZE])
def test_what_is_no_volume_is_told_so(size: int) -> None:
    with region(size) as empty, pytest.raises(NotEncrypted):
        open_volume(empty)


def test_a_region_that_holds_hardly_more_than_a_header_is_too_small() -> None:
    with region(16 << 20) as small, pytest.raises(InvalidArgument):
        format_volume(small, FIRST, cost=CHEAP)


def test_what_a_key_costs_is_measured_and_bounded() -> None:
    slow = measured_cost(1.0, lambda cost: 10.0)
    fast = measured_cost(1.0, lambda cost: 1e-5)
    assert (slow.passes, slow.memory_kib) == (4, 32 << 10)
    assert fast.passes <= 64 and fast.memory_kib <= 256 << 10
    usual = measured_cost(1.0, lambda cost: cost.passes * cost.memory_kib / (1 << 20))
    assert usual.passes * usual.memory_kib <= 1 << 20 and usual.passes >= 4


def test_secrets_are_shown_to_nobody() -> None:
    with volume() as made:
        unlocked = unlock(made, open_volume(made), FIRST)
        assert unlocked.key.view.hex() not in repr(unlocked) and "***" in repr(unlocked)
        view = unlocked.key.view
        unlocked.key.close()
        assert bytes(view) == bytes(64)


def test_too_many_costly_slots_are_not_all_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysproc.storage.luks.volume.MOST_COST_OF_ALL", 300)
    with volume() as made:
        for number in range(1, 4):
            add_key(made, FIRST, memoryview(b"%d" % number), cost=Cost(4, 32, 1))
        assert opens(made, b"1")
        with pytest.raises(WrongKey) as refused:
            opens(made, b"3")
        assert "2 key slots were not tried" in refused.value.details
        with unlock(made, open_volume(made), memoryview(b"3"), slot=3).key:
            pass
