"""Input of processes: whole, in order, ended when it is closed, freed when it is consumed."""

import os
import signal

from sysproc.isolation.exec_state import SIGNAL_RING, Slot
from tests.kernel.exec.conftest import Start
from tests.kernel.exec.supervised import Wish

STDIN = Wish(stdin=True)


def test_input_arrives_until_it_is_closed(start: Start) -> None:
    supervised = start("cat", wish=STDIN)
    supervised.write_stdin(b"one\n")
    supervised.until_text(b"one\n")
    supervised.write_stdin(b"two\n")
    supervised.close_stdin()
    assert supervised.wait_end().code == 0
    assert supervised.output() == b"one\ntwo\n"


def test_input_that_was_there_before_the_process(start: Start) -> None:
    supervised = start("cat", wish=STDIN)
    supervised.write_stdin(b"x" * 500_000)
    supervised.close_stdin()
    supervised.wait_end()
    assert len(supervised.output()) == 500_000


def test_input_that_nobody_reads_waits_in_the_file(start: Start) -> None:
    supervised = start("sh", "-c", "read line; echo $line; exec sleep 1000", wish=STDIN)
    supervised.write_stdin(b"first\n" + bytes(1_000_000))
    supervised.until_text(b"first\n")
    assert supervised.page[Slot.STDIN_CONSUMED] < 200_000
    assert not supervised.page[Slot.STDIN_BROKEN]


def test_a_reader_that_goes_away_breaks_the_input_at_once(start: Start) -> None:
    supervised = start("sh", "-c", "exec 0<&-; echo closed; exec sleep 1000", wish=STDIN)
    supervised.until_slot(Slot.STDIN_BROKEN, 1)
    supervised.write_stdin(b"late")
    supervised.signal(signal.SIGTERM)
    assert supervised.wait_end().signal == signal.SIGTERM


def test_an_end_breaks_the_input(start: Start) -> None:
    supervised = start("true", wish=STDIN)
    supervised.wait_end()
    assert supervised.page[Slot.STDIN_BROKEN] == 1


def test_consumed_input_leaves_the_disk(start: Start) -> None:
    supervised = start("sh", "-c", "cat > /dev/null", wish=STDIN)
    piece, total = os.urandom(1 << 20), 0
    for _ in range(8):
        supervised.write_stdin(piece)
        total += len(piece)
        supervised.until_slot(Slot.STDIN_CONSUMED, total)
    assert (supervised.directory / "stdin").stat().st_blocks * 512 <= 2 << 20
    supervised.close_stdin()
    assert supervised.wait_end().code == 0


def test_signals_arrive_in_order_and_the_ring_says_when_it_is_full(start: Start) -> None:
    traps = "trap 'echo usr1' USR1; trap 'echo usr2' USR2; trap 'exit 5' TERM; echo ready"
    supervised = start("sh", "-c", f"{traps}; while :; do sleep 0.01; done", wish=Wish())
    supervised.until_text(b"ready\n")
    for number, word in ((signal.SIGUSR1, b"usr1"), (signal.SIGUSR2, b"usr2"), (signal.SIGUSR1, b"usr1")):
        before = supervised.output()
        supervised.signal(number)
        supervised.until_text(before + word + b"\n")
    supervised.signal(signal.SIGTERM)
    assert supervised.wait_end().code == 5


def test_a_ring_that_is_full_takes_no_more(start: Start) -> None:
    supervised = start("sleep", "1000")
    supervised.wait_started()
    os.kill(supervised.pid, signal.SIGSTOP)
    try:
        taken = [supervised.page.ask_signal(signal.SIGCONT) for _ in range(SIGNAL_RING + 1)]
    finally:
        os.kill(supervised.pid, signal.SIGCONT)
    assert taken == [True] * SIGNAL_RING + [False]
    supervised.poke()
    supervised.until_slot(Slot.SIGNALS_DONE, SIGNAL_RING)
    assert supervised.page.ask_signal(signal.SIGKILL)
    supervised.poke()
    assert supervised.wait_end().signal == signal.SIGKILL
