"""Runs the suites one after the other, and sums them up: `python -m tests [SUITE …] [-- PYTEST-ARGUMENT …]`.

Each suite is a directory beside this file and a process of its own, because the kernel tests must not share
one with gRPC's threads. What a suite needs is in its conftest.py, options are in `tests/conftest.py`.
"""

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
REPORTS = ROOT / ".cache" / "junit"

FIRST = ("lint", "unit", "kernel", "e2e")
LAST = ("vm",)

NO_TESTS_COLLECTED = 5


@dataclass(frozen=True)
class Outcome:
    """What became of one suite: how many tests of each kind, and which ones to look at."""

    counts: Counter[str]
    bad: tuple[str, ...]


def suites() -> Iterator[str]:
    """All suites in order: quick ones first, virtual machines last, and none forgotten."""
    present = {file.relative_to(HERE).parts[0] for file in HERE.glob("*/**/test_*.py")}
    between = sorted(present - {*FIRST, *LAST})
    yield from (suite for suite in (*FIRST, *between, *LAST) if suite in present)


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


def run(suite: str, arguments: Sequence[str]) -> Outcome:
    """Run one suite. One that dies, or fails without a failed test, counts as an error."""
    report = REPORTS / f"{suite}.xml"
    report.unlink(missing_ok=True)
    print(f"\n──── tests/{suite}", flush=True)
    command = [sys.executable, "-m", "pytest", f"tests/{suite}", f"--junitxml={report}", *arguments]
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if status == NO_TESTS_COLLECTED:
        return Outcome(Counter(), ())
    outcome = read_report(report) if report.exists() else Outcome(Counter(), ())
    if status and not outcome.bad:
        return Outcome(outcome.counts + Counter(errors=1), (f"ERROR tests/{suite}: pytest ended with {status}",))
    return outcome


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
    if os.geteuid():
        print("not root: the tests that need a real kernel are skipped (`sudo make test` runs them)", flush=True)
    started = time.monotonic()
    outcomes = [run(suite, rest) for suite in named]
    counts = sum((outcome.counts for outcome in outcomes), Counter[str]())
    bad = [line for outcome in outcomes for line in outcome.bad]
    print(f"\n──── {', '.join(named)}", *bad, sep="\n")
    print(closing_line(counts, time.monotonic() - started), flush=True)
    return 1 if bad or not counts else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
