"""What is seen inside of processes that are about to become somebody else's: nothing of the host, at no moment."""

import signal
from itertools import count
from pathlib import Path

import pytest

from sysproc.isolation.exec_spec import Window
from sysproc.isolation.exec_state import Slot
from tests.kernel.exec.conftest import Start, put_program
from tests.kernel.exec.supervised import Box, Supervised, Wish

BIRTHS = 60
READABLE = ("mountinfo", "mounts", "net/dev", "net/route")


@pytest.fixture(scope="module")
def watcher(box: Box) -> str:
    """The program, in the box."""
    return put_program(box, Path(__file__).with_name("births.c"))


def watch(start: Start, watcher: str) -> Supervised:
    """The watcher at work."""
    watching = start(watcher, str(BIRTHS), *READABLE)
    watching.until_text(b"ready\n")
    return watching


def test_a_process_is_born_with_the_mounts_and_the_network_of_its_container(start: Start, watcher: str) -> None:
    watching = watch(start, watcher)
    while watching.page.end() is None:
        start("true").wait_end()
    assert watching.output() == b"ready\n%d births\n" % BIRTHS


def test_so_is_what_carries_a_signal_to_the_foreground_of_a_terminal(start: Start, watcher: str) -> None:
    terminal = start("sleep", "1000", wish=Wish(window=Window(24, 80)))
    terminal.wait_started()
    watching = watch(start, watcher)
    for asked in count(1):
        if watching.page.end() is not None:
            break
        terminal.signal(signal.SIGCONT)
        terminal.until_slot(Slot.SIGNALS_DONE, asked)
    assert watching.output() == b"ready\n%d births\n" % BIRTHS
    assert terminal.page.end() is None
