"""Output at its bound: the process waits or the oldest goes, holes are punched, nothing is lost that may not be."""

import os
from pathlib import Path

from sysproc.isolation.exec_state import Slot
from tests.kernel.exec.conftest import Start
from tests.kernel.exec.supervised import Supervised, Wish

BOUND = 1 << 16
COUNT = "i=0; while [ $i -lt 40000 ]; do i=$((i+1)); echo $i; done"
COUNTED = b"".join(b"%d\n" % number for number in range(1, 40001))


def size_of(supervised: Supervised, name: str = "stdout") -> int:
    return (supervised.directory / name).stat().st_size


def on_disk(file: Path) -> int:
    return file.stat().st_blocks * 512


def is_blocked_in_write(supervised: Supervised) -> bool:
    """The kernel function in which it sleeps; without that, whether it sleeps at all."""
    with open(f"/proc/{supervised.page[Slot.PID]}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "S"


def test_at_the_bound_the_process_waits_and_goes_on_when_it_is_read(start: Start) -> None:
    supervised = start("sh", "-c", f"{COUNT}; echo end >&2", wish=Wish(spool_bytes=BOUND))
    supervised.until(lambda: size_of(supervised) >= BOUND and is_blocked_in_write(supervised), "it waits")
    assert size_of(supervised) == BOUND
    got = b""
    while len(got) < len(COUNTED):
        supervised.until_size(len(got) + 1)
        with (supervised.directory / "stdout").open("rb") as file:
            file.seek(len(got))
            got += file.read()
        supervised.take(len(got))
    assert got == COUNTED
    assert supervised.wait_end().code == 0
    assert supervised.output("stderr") == b"end\n"


def test_what_was_taken_leaves_the_disk(start: Start) -> None:
    supervised = start("head", "-c", "3000000", "/dev/zero", wish=Wish(spool_bytes=BOUND))
    while supervised.page.end() is None:
        supervised.take(taken := size_of(supervised))
        assert on_disk(supervised.directory / "stdout") <= 2 * BOUND
        supervised.until_size(taken + 1)
    assert supervised.wait_end().stdout_size == 3000000
    assert supervised.page[Slot.STDOUT_FREED] > 3000000 - 2 * BOUND


def test_what_was_not_taken_stays_readable(start: Start) -> None:
    supervised = start("sh", "-c", COUNT, wish=Wish(spool_bytes=BOUND))
    supervised.until_size(BOUND)
    supervised.take(BOUND // 2)
    supervised.until_size(BOUND + BOUND // 4)
    assert supervised.page[Slot.STDOUT_FREED] <= BOUND // 2
    assert supervised.output()[BOUND // 2 : BOUND] == COUNTED[BOUND // 2 : BOUND]


def test_with_drop_oldest_the_process_never_waits(start: Start) -> None:
    supervised = start("sh", "-c", COUNT, wish=Wish(spool_bytes=BOUND, drop_oldest=True))
    assert supervised.wait_end().stdout_size == len(COUNTED)
    freed = supervised.page[Slot.STDOUT_FREED]
    assert len(COUNTED) - BOUND <= freed + (64 << 10)
    assert supervised.output()[freed:] == COUNTED[freed:]
    assert on_disk(supervised.directory / "stdout") <= 2 * BOUND


def test_the_streams_have_bounds_of_their_own(start: Start) -> None:
    script = "head -c 1000000 /dev/zero & i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo $i >&2; done; wait"
    supervised = start("sh", "-c", script, wish=Wish(spool_bytes=BOUND))
    supervised.until(lambda: supervised.output("stderr").endswith(b"\n100\n"), "all of stderr")
    assert size_of(supervised) <= BOUND


def test_more_than_the_reader_says_it_has_is_not_freed(start: Start) -> None:
    supervised = start("sh", "-c", "echo some; read wait", wish=Wish(spool_bytes=BOUND, stdin=True))
    supervised.until_size(5)
    supervised.take(1 << 40)
    supervised.close_stdin()
    supervised.wait_end()
    assert supervised.page[Slot.STDOUT_FREED] <= 5


def test_the_end_comes_with_all_of_the_output_even_beyond_the_bound(start: Start) -> None:
    supervised = start("sh", "-c", "head -c 100000 /dev/zero & sleep 0.2", wish=Wish(spool_bytes=BOUND))
    end = supervised.wait_end()
    assert end.stdout_size == size_of(supervised) == len(supervised.output()) >= BOUND


def test_binary_output_arrives_as_it_is(start: Start) -> None:
    data = os.urandom(300_000)
    supervised = start("cat", wish=Wish(stdin=True))
    supervised.write_stdin(data)
    supervised.close_stdin()
    supervised.wait_end()
    assert supervised.output() == data
