"""The supervisor itself: killed, told nonsense, given to another daemon."""

import os
import select
import signal
import time
from pathlib import Path

import pytest

from sysproc.isolation.exec_spec import Fd
from sysproc.isolation.exec_state import ExitKind, Phase, Slot, StatePage, Step
from sysproc.linux.pidfd import pidfd_getfd
from tests.kernel.exec.conftest import Start, put_program
from tests.kernel.exec.supervised import Box, Supervised, Wish


def test_when_it_is_killed_its_process_goes_with_it(start: Start) -> None:
    supervised = start("sleep", "1000")
    supervised.wait_started()
    process = os.pidfd_open(supervised.page[Slot.PID])
    os.kill(supervised.pid, signal.SIGKILL)
    ended, _, _ = select.select([process], [], [], 30)
    os.close(process)
    assert ended
    assert supervised.page.phase is Phase.RUNNING


def test_the_page_of_one_that_was_killed_can_be_finished(start: Start) -> None:
    supervised = start("sh", "-c", "echo some; exec sleep 1000")
    supervised.until_text(b"some\n")
    os.kill(supervised.pid, signal.SIGKILL)
    select.select([supervised.pidfd], [], [])
    supervised.page.end_killed(5, 0, time.time_ns())
    end = supervised.page.end()
    assert end is not None
    assert (end.code, end.signal, end.stdout_size) == (None, signal.SIGKILL, 5)
    assert supervised.page[Slot.EXIT_KIND] == ExitKind.SIGNAL


def test_another_daemon_finds_everything_at_its_place(start: Start) -> None:
    supervised = start("cat", wish=Wish(stdin=True))
    supervised.wait_started()
    page = StatePage.open(supervised.directory / "state")
    wake = pidfd_getfd(supervised.pidfd, Fd.WAKE)
    with (supervised.directory / "stdin").open("ab") as file:
        file.write(b"from another")
    page.close_stdin()
    os.eventfd_write(wake, 1)
    assert supervised.wait_end().code == 0
    assert supervised.output() == b"from another"
    os.close(wake)
    page.close()


def test_once_the_process_runs_the_spec_is_gone(start: Start) -> None:
    supervised = start("sleep", "1000")
    supervised.wait_started()
    supervised.until(lambda: fd_targets(supervised.pid).isdisjoint({"/memfd:sysproc-exec (deleted)"}), "it is closed")


def fd_targets(pid: int) -> set[str]:
    return {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}


def test_a_spec_that_makes_no_sense_is_refused(box: Box, tmp_path: Path) -> None:
    class Nonsense(Supervised):
        def _spawn(self, state: int, init_pidfd: int) -> int:
            object.__setattr__(self.spec, "encode", lambda: b"\0" * 20)
            return super()._spawn(state, init_pidfd)

    with Nonsense(box, tmp_path / "nonsense", [b"true"]) as supervised:
        end = supervised.wait_end()
    assert end.failure is not None
    assert end.failure.step is Step.SPEC


def test_it_costs_little(start: Start) -> None:
    supervised = start("sleep", "1000")
    supervised.wait_started()
    status = Path(f"/proc/{supervised.pid}/status").read_text()
    resident = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
    assert resident < 1024


@pytest.mark.parametrize(("how", "expected"), [("exit 7", (7, None)), ("kill -KILL $$", (None, signal.SIGKILL))])
def test_one_that_is_traced_by_somebody_who_never_reaps_it_has_ended_all_the_same(
    box: Box, start: Start, how: str, expected: tuple[int | None, int | None]
) -> None:
    traced = start("sh", "-c", f"echo begun; read go; {how}", wish=Wish(stdin=True))
    traced.until_text(b"begun\n")
    tracer = start(put_program(box, Path(__file__).with_name("tracer.c")), str(traced.page[Slot.PID_INSIDE]))
    tracer.until_text(b"tracing\n")
    (traced.directory / "stdin").write_bytes(b"go\n")
    traced.poke()
    end = traced.wait_end()
    assert (end.code, end.signal) == expected
    assert tracer.page.phase is Phase.RUNNING
