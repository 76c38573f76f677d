"""Claims of uid ranges: files only; what lives in a range is looked at in tests/kernel/isolation."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysproc.errors import ResourceExhausted
from sysproc.isolation.uid_ranges import SIZE, Claim, UidRanges, parse_subordinate

# Where no daemon of this host has its ranges: a range that somebody lives in is not given.
FIRST = 0x5F000000


def ranges(directory: Path, count: int = 8, subordinate: tuple[Path, ...] = ()) -> UidRanges:
    return UidRanges(directory / "claims", FIRST, count, subordinate=subordinate)


def entries(directory: Path) -> set[str]:
    return {path.name for path in (directory / "claims").iterdir()}


def test_no_range_is_given_twice(tmp_path: Path) -> None:
    one, other = ranges(tmp_path), ranges(tmp_path)
    bases = {(one if turn % 2 else other).claim(f"owner {turn}").base for turn in range(8)}
    assert bases == {FIRST + slot * SIZE for slot in range(8)}


def test_many_threads_and_processes_never_get_the_same(tmp_path: Path) -> None:
    def claim_many(name: str) -> list[int]:
        mine = ranges(tmp_path, 160)
        return [mine.claim(f"{name} {turn}").base for turn in range(20)]

    readers = []
    for number in range(4):
        reader, writer = os.pipe()
        if os.fork() == 0:
            try:
                os.write(writer, " ".join(map(str, claim_many(f"process {number}"))).encode())
            finally:
                os._exit(0)
        os.close(writer)
        readers.append(reader)
    with ThreadPoolExecutor() as threads:
        bases = [base for some in threads.map(claim_many, "abcd") for base in some]
    for reader in readers:
        with open(reader) as file:
            bases += map(int, file.read().split())
        os.wait()
    assert len(set(bases)) == len(bases) == 160


def test_when_all_are_in_use_it_says_so_with_figures(tmp_path: Path) -> None:
    full = ranges(tmp_path, 2)
    full.claim("a")
    full.claim("b")
    with pytest.raises(ResourceExhausted) as refused:
        full.claim("c")
    assert refused.value.metadata == {"ranges": "2", "reserved": "0"}


def test_what_was_released_can_be_claimed_again(tmp_path: Path) -> None:
    only = ranges(tmp_path, 1)
    claimed = only.claim("a")
    only.release(claimed)
    only.release(claimed)
    assert entries(tmp_path) == set()
    assert only.claim("b") == claimed


def test_an_owner_gets_back_all_that_it_had_and_no_more(tmp_path: Path) -> None:
    mine = ranges(tmp_path)
    first, second = mine.claim("import"), mine.claim("import")
    other = mine.claim("imports")
    mine.release(first)
    assert mine.reclaim("import")
    assert mine.reclaim("import")
    assert mine.reclaim("nobody")
    left = ranges(tmp_path, 8)
    assert {left.claim(str(turn)).base for turn in range(7)} == {FIRST + slot * SIZE for slot in range(8)} - {
        other.base
    }
    assert second.size == SIZE


def test_a_claim_says_who_has_it(tmp_path: Path) -> None:
    claimed = ranges(tmp_path).claim("/var/lib/sys proc:00c0ffee00c0ffee")
    claim = Claim.parse(os.readlink(tmp_path / "claims" / str(claimed.base)))
    assert claim.owner == "/var/lib/sys proc:00c0ffee00c0ffee"
    assert claim.boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_a_claim_of_an_earlier_boot_counts_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "claims").mkdir()
    os.symlink(str(Claim("another-boot", "life", "somebody")), tmp_path / "claims" / str(FIRST))
    only = ranges(tmp_path, 1)
    assert only.claim("me").base == FIRST
    assert Claim.parse(os.readlink(tmp_path / "claims" / str(FIRST))).owner == "me"


def test_a_claim_of_any_other_form_counts_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "claims").mkdir()
    os.symlink("?", tmp_path / "claims" / str(FIRST))
    assert ranges(tmp_path, 1).claim("me").base == FIRST


def test_a_claim_that_was_cut_off_in_the_middle_is_forgotten(tmp_path: Path) -> None:
    """The index says that we have it, the claim is another's by now."""
    mine = ranges(tmp_path, 1)
    claimed = mine.claim("me")
    os.unlink(tmp_path / "claims" / str(claimed.base))
    assert mine.claim("you") == claimed
    assert mine.reclaim("me")
    with pytest.raises(ResourceExhausted):
        mine.claim("me")
    assert mine.reclaim("you")
    assert entries(tmp_path) == set()


def test_a_release_that_was_cut_off_in_the_middle_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = ranges(tmp_path)
    claimed = mine.claim("owner")
    with monkeypatch.context() as cut:
        cut.setattr("os.rmdir", lambda _: None)
        mine.release(claimed)
    assert entries(tmp_path) != set()
    assert ranges(tmp_path).reclaim("owner")
    assert entries(tmp_path) == set()


def test_what_an_earlier_life_has_left_is_given_back(tmp_path: Path) -> None:
    claimed = ranges(tmp_path, 1).claim("container")
    later = ranges(tmp_path, 1)
    assert later.reclaim("container")
    assert later.claim("container") == claimed


def test_subordinate_ids_of_users_are_left_alone(tmp_path: Path) -> None:
    subuid, subgid = tmp_path / "subuid", tmp_path / "subgid"
    subuid.write_text(f"alice:{FIRST + SIZE + 5}:{SIZE}\n# nothing\nbob:100000:65536\n")
    mine = ranges(tmp_path, 5, (subuid, subgid))
    assert {mine.claim(str(turn)).base for turn in range(3)} == {FIRST + slot * SIZE for slot in (0, 3, 4)}
    subgid.write_text(f"carol:{FIRST - 1}:2\n")
    mine.reclaim("0")
    mine.reclaim("1")
    mine.reclaim("2")
    assert {mine.claim(str(turn)).base for turn in range(2)} == {FIRST + slot * SIZE for slot in (3, 4)}
    with pytest.raises(ResourceExhausted, match="3 of them are left alone"):
        mine.claim("2")


@given(st.lists(st.tuples(st.integers(0, 1 << 32), st.integers(1, 1 << 32))))
def test_ranges_of_subuid_are_read(pairs: list[tuple[int, int]]) -> None:
    assert list(parse_subordinate("".join(f"user:{start}:{count}\n" for start, count in pairs))) == pairs


@given(st.text())
def test_any_subuid_can_be_read(text: str) -> None:
    for start, count in parse_subordinate(text):
        assert start >= 0
        assert count > 0
