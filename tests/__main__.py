"""Runs the suites, and sums them up: `python -m tests [SUITE …] [-- PYTEST-ARGUMENT …]`.

    lint ▸ unit ▸ kernel ▸ e2e ▸ …         one after the other
                           e2e             at the same time by a second process: see `tests.claims`
    vm                                     beside them; what it says comes when it has ended
    crash, packaging                       the same

Each suite is a directory beside this file and a process of its own, because the kernel tests must not share
one with gRPC's threads. What a suite needs is in its conftest.py, options are in `tests/conftest.py`.
"""

import compileall
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
REPORTS = ROOT / ".cache" / "junit"

FIRST = ("lint", "unit", "kernel", "e2e")
# Those that wait most of the time: for a machine of their own, for daemons that start, for downloads.
BESIDE = ("vm", "crash", "packaging")
# The longest, which wait as well: two processes share it, but where collecting alone takes a minute.
SHARED = () if "SYSPROC_TEST_IN_VM" in os.environ else ("e2e",)

NO_TESTS_COLLECTED = 5


@dataclass(frozen=True)
class Outcome:
    """What became of one suite: how many tests of each kind, and which ones to look at."""

    counts: Counter[str]
    bad: tuple[str, ...]


def suites() -> Iterator[str]:
    """All suites in order: quick ones first, and none forgotten."""
    present = {file.relative_to(HERE).parts[0] for file in HERE.glob("*/**/test_*.py")}
    between = sorted(present - {*FIRST, *BESIDE})
    yield from (suite for suite in (*FIRST, *between, *BESIDE) if suite in present)


def kind(case: ElementTree.Element) -> str:
    """The word that pytest has for it."""
    for tag, word in (("failure", "failed"), ("error", "errors")):
        if case.find(tag) is not None:
            return word
    if (skipped := case.find("skipped")) is not None:
        return "xfailed" if skipped.get("type") == "pytest.xfail" else "skipped"
    return "passed"


def read_report(report: Path) -> Outcome:
    """Count the test cases of a JUnit file."""
    kinds = [(kind(case), case) for case in ElementTree.parse(report).iter("testcase")]
    bad = (
        f"{word.removesuffix('s').upper()} {case.get('classname')}::{case.get('name')}"
        for word, case in kinds
        if word in ("failed", "errors")
    )
    return Outcome(Counter(word for word, _ in kinds), tuple(bad))


@dataclass(frozen=True)
class Run:
    """One pytest process: of a whole suite, or the first or second of those that share one."""

    suite: str
    of_those_that_share: int = 0

    def __str__(self) -> str:
        return self.suite + f"-{self.of_those_that_share}" * bool(self.of_those_that_share)

    @property
    def report(self) -> Path:
        """Where it writes its JUnit file."""
        return REPORTS / f"{self}.xml"

    def command(self, arguments: Sequence[str], directory: Path) -> list[str]:
        """How it is run. Its temporary files are below this directory: sessions at once remove each other's."""
        own = [f"--junitxml={self.report}", f"--basetemp={directory / str(self)}"]
        if self.of_those_that_share:
            own += ["-p", "tests.claims", f"--claims={directory / self.suite}-claims"]
        return [sys.executable, "-m", "pytest", f"tests/{self.suite}", *own, *arguments]


def runs(suite: str) -> list[Run]:
    """The processes that run a suite."""
    return [Run(suite, 1), Run(suite, 2)] if suite in SHARED else [Run(suite)]


def environment() -> Mapping[str, str]:
    """Modules are compiled before (`compile_all`), not by each of a thousand daemons; whatever the shell says."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def compile_all() -> None:
    """What processes run that write no compiled modules themselves."""
    for directory in ("sysproc", "clients/python/src"):
        compileall.compile_dir(ROOT / directory, quiet=1)


def run(suite: str, arguments: Sequence[str], directory: Path) -> list[Outcome]:
    """Run one suite; where it is shared, what the second process says comes after the first."""
    first, *others = runs(suite)
    with ExitStack() as stack:
        ends = [stack.enter_context(beside(other, arguments, directory)) for other in others]
        print(f"\n──── tests/{first}", flush=True)
        ended = subprocess.run(first.command(arguments, directory), cwd=ROOT, env=environment(), check=False)
        return [outcome(first, ended.returncode), *(end() for end in ends)]


def outcome(run: Run, status: int) -> Outcome:
    """What became of one. One that died, or failed without a failed test, counts as an error."""
    if status == NO_TESTS_COLLECTED:
        return Outcome(Counter(), ())
    found = read_report(run.report) if run.report.exists() else Outcome(Counter(), ())
    if status and not found.bad:
        return Outcome(found.counts + Counter(errors=1), (f"ERROR tests/{run}: pytest ended with {status}",))
    return found


@contextmanager
def beside(run: Run, arguments: Sequence[str], directory: Path) -> Iterator[Callable[[], Outcome]]:
    """Run one while others run; what is yielded waits for its end, prints what it said, returns how it was."""
    with tempfile.TemporaryFile() as said:
        # A session of its own, which is ended as a whole.
        process = subprocess.Popen(
            run.command(arguments, directory),
            cwd=ROOT,
            env=environment(),
            stdout=said,
            stderr=said,
            start_new_session=True,
        )

        def ended() -> Outcome:
            status = process.wait()
            said.seek(0)
            print(f"\n──── tests/{run}", said.read().decode(errors="replace"), sep="\n", flush=True)
            return outcome(run, status)

        try:
            yield ended
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()


def run_all(named: Sequence[str], arguments: Sequence[str], directory: Path) -> Iterator[Outcome]:
    """Run the suites that are named."""
    others = [one for one in named if one not in BESIDE]
    if not others:
        for suite in named:
            yield from run(suite, arguments, directory)
        return
    with ExitStack() as stack:
        ends = [stack.enter_context(beside(Run(suite), arguments, directory)) for suite in BESIDE if suite in named]
        for suite in others:
            yield from run(suite, arguments, directory)
        yield from (ended() for ended in ends)


def closing_line(counts: Counter[str], seconds: float) -> str:
    """What pytest would print at the end of one single run."""
    order = ("failed", "passed", "skipped", "xfailed", "errors")
    text = ", ".join(f"{counts[word]} {word}" for word in order if counts[word]) or "no tests ran"
    text = text.removesuffix("s") if counts["errors"] == 1 else text
    clock = f" ({int(seconds) // 3600}:{int(seconds) // 60 % 60:02}:{int(seconds) % 60:02})" if seconds >= 60 else ""
    return f" {text} in {seconds:.2f}s{clock} ".center(80, "=")


def main(arguments: Sequence[str]) -> int:
    """Run the suites that are named, or all; 0 if something ran and nothing failed."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    named, rest = arguments[:split] or list(suites()), arguments[split + 1 :]
    REPORTS.mkdir(parents=True, exist_ok=True)
    for one in (run for suite in named for run in runs(suite)):
        one.report.unlink(missing_ok=True)
    if os.geteuid():
        print("not root: the tests that need a real kernel are skipped (`sudo make test` runs them)", flush=True)
    started = time.monotonic()
    compile_all()
    with tempfile.TemporaryDirectory(prefix="sysproc-tests-", ignore_cleanup_errors=True) as directory:
        outcomes = list(run_all(named, rest, Path(directory)))
    counts = sum((one.counts for one in outcomes), Counter[str]())
    bad = [line for one in outcomes for line in one.bad]
    print(f"\n──── {', '.join(named)}", *bad, sep="\n")
    print(closing_line(counts, time.monotonic() - started), flush=True)
    return 1 if bad or not counts else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what runs beside ends, too
    sys.exit(main(sys.argv[1:]))
