"""A process in front of the tests that reaps the orphans which they make.

    shell ── reaper (child subreaper) ── pytest ── daemon, launcher, keepers …
                 ▲                                             │
                 └───────── orphans get it as their parent ────┘

Not every PID 1 reaps at once, and a zombie keeps its pid: a test would see a killed keeper for seconds.
pytest itself cannot do it: waiting for just any child would take the exit statuses away from `subprocess`.
`tests/conftest.py` calls it; `tests.leaks.proc` counts whatever is below the reaper as the tests' own.
"""

import os
import signal

from sysproc.linux.prctl import set_child_subreaper, set_pdeathsig

VARIABLE = "SYSPROC_TEST_REAPER"


def ancestor() -> int:
    """The process above all that the tests start: the reaper if there is one, else the tests themselves."""
    return os.getppid() if os.environ.get(VARIABLE) == str(os.getppid()) else os.getpid()


def reap_until_end_of(child: int) -> int:
    """Reap whatever ends; the wait status of the child once that ends."""
    while True:
        pid, status = os.wait()
        if pid == child:
            return status


def stand_in_front() -> None:
    """Fork. The child goes on as the tests; this process reaps, and at last exits as the child did."""
    if ancestor() != os.getpid():
        return
    set_child_subreaper()
    reaper = os.getpid()
    child = os.fork()
    if child == 0:
        set_pdeathsig(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: fixtures still give back what they have
        os.environ[VARIABLE] = str(reaper)
        return
    # Ctrl-C goes to the whole group: the tests decide.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _: os.kill(child, number))
    code = os.waitstatus_to_exitcode(reap_until_end_of(child))
    os._exit(code if code >= 0 else 128 - code)
