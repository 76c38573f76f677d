"""How processes begin and end: status, environment, user, directory, and what they do not inherit."""

import os
import resource
import select
import signal
from collections.abc import Callable
from errno import errorcode

import pytest

from sysproc.isolation.exec_spec import default_limits
from sysproc.isolation.exec_state import Phase, ProcessEnd, Slot, Step
from tests.kernel.exec.conftest import Start
from tests.kernel.exec.supervised import PATH, Box, Wish

Run = Callable[..., tuple[ProcessEnd, bytes, bytes]]


@pytest.mark.parametrize("code", [0, 1, 7, 127, 255])
def test_its_exit_status_is_told(run: Run, code: int) -> None:
    end, _, _ = run("sh", "-c", f"exit {code}")
    assert (end.code, end.signal, end.failure) == (code, None, None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGRTMAX])
def test_the_signal_that_ended_it_is_told(run: Run, number: int) -> None:
    end, _, _ = run("sh", "-c", f"kill -{int(number)} $$")
    assert (end.code, end.signal) == (None, number)


def test_its_outputs_are_apart_and_whole(run: Run) -> None:
    end, stdout, stderr = run("sh", "-c", "echo out; echo problem >&2; printf end")
    assert (stdout, stderr) == (b"out\nend", b"problem\n")
    assert (end.stdout_size, end.stderr_size) == (7, 8)


@pytest.mark.parametrize(
    ("word", "code", "errno", "path"),
    [
        ("no-such-program", 127, "ENOENT", b"no-such-program"),
        ("/no/such/program", 127, "ENOENT", b"/no/such/program"),
        ("", 127, "ENOENT", b""),
        ("not-executable", 126, "EACCES", b"not-executable"),
        ("/bin/plain-text", 126, "ENOEXEC", b"/bin/plain-text"),
        ("/bin", 126, "EACCES", b"/bin"),
        ("/bin/busybox/x", 126, "ENOTDIR", b"/bin/busybox/x"),
        ("/bin/foreign", 126, "ENOEXEC", b"/bin/foreign"),
    ],
)
def test_what_cannot_be_executed_says_why(run: Run, word: str, code: int, errno: str, path: bytes) -> None:
    end, _, _ = run(word)
    assert end.failure is not None
    assert (end.code, end.failure.step, end.failure.path) == (code, Step.EXECVE, path)
    assert errno_name(end.failure.errno) == errno


def errno_name(number: int) -> str:
    return errorcode[number]


def test_a_missing_interpreter_is_named(run: Run) -> None:
    end, _, _ = run("no-interpreter")
    assert end.failure is not None
    assert (end.code, end.failure.path) == (126, b"/bin/no-interpreter")
    assert end.failure.interpreter == b"/no/such/interpreter"


def test_a_program_for_another_processor_is_named(run: Run) -> None:
    end, _, _ = run("/bin/foreign")
    assert end.failure is not None
    assert end.failure.machine == 243


def test_the_environment_is_what_was_asked_for_and_a_home(run: Run) -> None:
    _, stdout, _ = run("env", wish=Wish(environment=(PATH, b"A=1", b"EMPTY=", b"UTF=\xc3\xa4")))
    assert sorted(stdout.splitlines()) == sorted([PATH, b"A=1", b"EMPTY=", b"UTF=\xc3\xa4", b"HOME=/root"])


@pytest.mark.parametrize(
    ("uid", "home"), [(0, b"/root"), (1000, b"/home/user"), (12345, b"/")], ids=["root", "user", "unknown"]
)
def test_home_is_the_users_own(run: Run, uid: int, home: bytes) -> None:
    _, stdout, _ = run("sh", "-c", "echo $HOME", wish=Wish(uid=uid))
    assert stdout.strip() == home


def test_a_home_that_was_asked_for_stays(run: Run) -> None:
    _, stdout, _ = run("sh", "-c", "echo $HOME", wish=Wish(environment=(PATH, b"HOME=/tmp")))
    assert stdout == b"/tmp\n"


@pytest.mark.parametrize(
    ("uid", "gid", "expected"),
    [
        (0, None, b"0 0 0 10"),
        (1000, None, b"1000 1001 1001 10 29"),
        (1000, 5, b"1000 5 5"),
        (12345, None, b"12345 12345 12345"),
        (65535, 65535, b"65535 65535 65535"),
    ],
)
def test_user_and_groups_come_from_the_containers_files(run: Run, uid: int, gid: int | None, expected: bytes) -> None:
    _, stdout, _ = run("sh", "-c", "echo $(id -u) $(id -g) $(id -G)", wish=Wish(uid=uid, gid=gid))
    assert stdout.split() == expected.split()


def test_a_user_that_is_not_root_has_no_capability(run: Run) -> None:
    _, stdout, _ = run("grep", "-E", "^Cap(Prm|Eff|Amb|Inh)", "/proc/self/status", wish=Wish(uid=1000))
    assert {int(line.split()[1], 16) for line in stdout.splitlines()} == {0}


def test_it_begins_in_its_directory(run: Run) -> None:
    assert run("pwd", wish=Wish(directory=b"/home/user"))[1] == b"/home/user\n"


@pytest.mark.parametrize(
    ("directory", "uid", "errno"),
    [(b"/nowhere", 0, "ENOENT"), (b"/bin/sh", 0, "ENOTDIR"), (b"/locked", 1000, "EACCES")],
)
def test_a_directory_that_cannot_be_entered_says_why(run: Run, directory: bytes, uid: int, errno: str) -> None:
    end, _, _ = run("pwd", wish=Wish(directory=directory, uid=uid))
    assert end.failure is not None
    assert (end.code, end.failure.step, errno_name(end.failure.errno)) == (126, Step.DIRECTORY, errno)


def test_it_has_no_fds_but_the_three(run: Run) -> None:
    _, stdout, _ = run("sh", "-c", "ls /proc/$$/fd; true")
    assert stdout.split() == [b"0", b"1", b"2"]


def test_its_input_is_empty_unless_asked_for(run: Run) -> None:
    assert run("sh", "-c", "cat; readlink /proc/self/fd/0")[1] == b"/dev/null\n"


def test_signals_are_as_in_a_new_login(run: Run) -> None:
    _, stdout, _ = run("grep", "-E", "^(SigBlk|SigIgn|SigCgt|SigPnd)", "/proc/self/status")
    assert {int(line.split()[1], 16) for line in stdout.splitlines()} == {0}


def test_a_broken_pipe_ends_a_writer(run: Run) -> None:
    _, _, stderr = run("sh", "-c", "yes | head -n 1 >/dev/null; echo done >&2")
    assert stderr == b"done\n"


def test_it_leads_a_session_of_its_own_and_init_is_not_its_parent(run: Run) -> None:
    _, stdout, _ = run("cut", "-d", " ", "-f", "1,4,5,6", "/proc/self/stat")
    pid, parent, group, session = map(int, stdout.split())
    assert (group, session, parent) == (pid, pid, 0)


def test_limits_are_those_of_the_spec(run: Run) -> None:
    wish = Wish(limits={resource.RLIMIT_NOFILE: (77, 99), resource.RLIMIT_CORE: (0, 0)})
    _, stdout, _ = run("sh", "-c", "ulimit -n; ulimit -Hn; ulimit -Hc", wish=wish)
    assert stdout.split() == [b"77", b"99", b"0"]


def test_a_limit_above_our_own_becomes_our_own(run: Run) -> None:
    _, stdout, _ = run("sh", "-c", "ulimit -n; ulimit -Hn", wish=Wish(limits=dict(default_limits())))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = 524288 if os.geteuid() == 0 and can_raise() else min(524288, hard)
    assert [int(word) for word in stdout.split()] == [1024, wanted]


def can_raise() -> bool:
    """Whether CAP_SYS_RESOURCE (24) is effective here."""
    with open("/proc/self/status") as file:
        effective = next(line for line in file if line.startswith("CapEff"))
    return bool(int(effective.split()[1], 16) >> 24 & 1)


def test_where_it_is_and_when_it_began_is_published(start: Start) -> None:
    supervised = start("sh", "-c", "echo $$; exec sleep 1000")
    supervised.wait_started()
    supervised.until(lambda: bool(supervised.output()), "its first line")
    page = supervised.page
    assert page[Slot.PID_INSIDE] == int(supervised.output())
    assert page[Slot.SUPERVISOR_PID] == supervised.pid
    with open(f"/proc/{page[Slot.PID]}/stat") as file:
        assert page[Slot.PID_START] == int(file.read().rpartition(")")[2].split()[19])
    assert page.phase is Phase.RUNNING


def test_what_lives_on_in_the_container_does_not_hold_up_the_end(run: Run) -> None:
    end, stdout, _ = run("sh", "-c", "echo before; (sleep 1000; echo late) & exit 4")
    assert (end.code, stdout) == (4, b"before\n")


def test_who_keeps_writing_after_the_end_is_neither_blocked_nor_killed(start: Start, run: Run) -> None:
    marker = "/tmp/written"
    first = start("sh", "-c", f"(head -c 3000000 /dev/zero; echo $? > {marker}) & exit 0")
    assert first.wait_end().code == 0
    _, stdout, _ = run("sh", "-c", f"until [ -s {marker} ]; do sleep 0.05; done; cat {marker}")
    assert stdout == b"0\n"


def test_init_that_is_gone_is_an_error_and_not_a_process_of_the_host(start: Start, make_box: Callable[[], Box]) -> None:
    box = make_box()
    signal.pidfd_send_signal(box.init_pidfd, signal.SIGKILL)
    select.select([box.init_pidfd], [], [])
    end = start("true", at=box).wait_end()
    assert end.failure is not None
    assert end.failure.step in (Step.ENTER_PIDS, Step.CLONE)
