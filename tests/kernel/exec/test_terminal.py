"""Processes with a terminal of their own: size, line discipline, job control, the end of input."""

import signal

import pytest

from sysproc.isolation.exec_spec import Window
from sysproc.isolation.exec_state import Phase
from tests.kernel.exec.conftest import Start
from tests.kernel.exec.supervised import PATH, Wish

PROMPT = b"# "
# A character that makes a signal also flushes what is on its way (termios(3), NOFLSH): typed again and again it would
# eat the answer.
TTY = Wish(window=Window(24, 80), environment=(PATH, b"TERM=xterm"))


def test_it_is_a_terminal_in_the_containers_devpts(start: Start) -> None:
    supervised = start("sh", "-c", "tty; test -t 0 && test -t 1 && test -t 2 && echo all", wish=TTY)
    assert supervised.wait_end().code == 0
    assert supervised.output().splitlines() == [b"/dev/pts/0", b"all"]


def test_it_is_the_controlling_terminal_and_its_owner_may_open_it(start: Start) -> None:
    wish = Wish(window=Window(24, 80), uid=1000)
    supervised = start("sh", "-c", "echo direct > /dev/tty; stat -c %u $(tty)", wish=wish)
    assert supervised.wait_end().code == 0
    assert supervised.output().splitlines() == [b"direct", b"1000"]


def test_it_has_the_size_that_was_asked_for_and_follows_changes(start: Start) -> None:
    script = "stty size; trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.01; done"
    supervised = start("sh", "-c", script, wish=Wish(window=Window(41, 133)))
    supervised.until_text(b"41 133\r\nready\r\n")
    supervised.page.set_window(50, 100)
    supervised.poke()
    assert supervised.wait_end().code == 0
    assert supervised.output().endswith(b"50 100\r\n")


def test_what_is_typed_is_echoed_and_read_by_lines(start: Start) -> None:
    supervised = start("sh", "-c", 'read line; echo "got $line"', wish=TTY)
    supervised.write_stdin(b"hello\n")
    assert supervised.wait_end().code == 0
    assert supervised.output() == b"hello\r\ngot hello\r\n"


def test_the_interrupt_character_interrupts_the_foreground(start: Start) -> None:
    supervised = start("sh", "-c", "stty noflsh; trap 'echo outer; exit 9' INT; echo ready; sleep 1000", wish=TTY)
    supervised.until_text(b"ready")
    supervised.again_until_text(lambda: supervised.write_stdin(b"\x03"), b"outer")
    assert supervised.wait_end().code == 9
    assert b"outer" in supervised.output()


def test_job_control_stops_and_goes_on(start: Start) -> None:
    supervised = start("sh", "-i", wish=TTY)
    supervised.until_text(PROMPT)
    supervised.write_stdin(b"stty noflsh; echo be''gun; sleep 1000\n")
    supervised.until_text(b"begun")
    supervised.again_until_text(lambda: supervised.write_stdin(b"\x1a"), b"Stopped")
    supervised.write_stdin(b"\nkill %1; fg; exit 3\n")
    assert supervised.wait_end().code == 3


def test_a_signal_goes_to_the_foreground_group(start: Start) -> None:
    supervised = start("sh", "-i", wish=TTY)
    supervised.until_text(PROMPT)
    supervised.write_stdin(b"sleep 1000; echo after=$?\n")
    # An interactive shell ignores SIGTERM, so it does no harm before sleep is in the foreground.
    supervised.again_until_text(lambda: supervised.signal(signal.SIGTERM), b"after=143")
    supervised.write_stdin(b"exit 0\n")
    assert supervised.wait_end().code == 0


@pytest.mark.parametrize("before", [b"", b"a line\n", b"half a line"])
def test_closing_the_input_is_the_end_of_file_character(start: Start, before: bytes) -> None:
    supervised = start("cat", wish=TTY)
    supervised.write_stdin(before)
    supervised.close_stdin()
    assert supervised.wait_end().code == 0
    assert before.replace(b"\n", b"\r\n") in supervised.output()


def test_the_terminal_is_hung_up_at_the_end(start: Start) -> None:
    script = "trap '' HUP; (while echo x; do sleep 0.01; done; echo gone > /tmp/hungup) & exit 2"
    supervised = start("sh", "-c", script, wish=TTY)
    assert supervised.wait_end().code == 2
    assert supervised.page.phase is Phase.DONE
    second = start("sh", "-c", "until [ -s /tmp/hungup ]; do sleep 0.02; done; rm /tmp/hungup")
    assert second.wait_end().code == 0


def test_much_output_of_a_terminal_arrives_whole(start: Start) -> None:
    supervised = start("sh", "-c", "stty -opost; head -c 400000 /dev/zero | tr '\\0' x; printf END", wish=TTY)
    assert supervised.wait_end().code == 0
    assert supervised.output() == b"x" * 400000 + b"END"


def test_at_the_bound_a_terminal_waits(start: Start) -> None:
    wish = Wish(window=Window(24, 80), spool_bytes=1 << 16)
    supervised = start("sh", "-c", "stty -opost; head -c 400000 /dev/zero | tr '\\0' x", wish=wish)
    file = supervised.directory / "stdout"
    supervised.until_size(1 << 16)
    while supervised.page.end() is None:
        supervised.take(taken := file.stat().st_size)
        supervised.until_size(taken + 1)
    assert supervised.wait_end().stdout_size == 400000
