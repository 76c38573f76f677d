"""The kernel, e2e and isolation tests on the oldest supported kernel: Debian 12's 6.1, cgroup v2, systemd as PID 1.

`--vm=short`, the default, runs what depends on the kernel most, in a few minutes; `--vm=full` (`make test-vm`) runs
everything, which takes hours: each suite in a machine of its own (`make test-vm ARGS="-k isolation"`). What the machine
is made of is in `tests.vm.image`.
"""

from collections import Counter
from pathlib import Path

import pytest

from tests.__main__ import read_report
from tests.debian.root import debian_root, why_not
from tests.vm.image import Image
from tests.vm.machine import run_tests

# Emulation is ten times slower: budgets of time say nothing there, and what takes long need not hang.
OPTIONS = ("-q", "--timeout=900")
SUITES: dict[str, list[tuple[str, ...]]] = {
    "short": [("kernel", "e2e")],
    "full": [("kernel",), ("e2e",), ("isolation",)],
}
SELECTION = {"short": "vm and not timing", "full": "not timing"}
TIMEOUT_S = {"short": 2700, "full": 10_800}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One machine for the short set, one for each suite of the full one."""
    if "suites" in metafunc.fixturenames:
        metafunc.parametrize("suites", SUITES[metafunc.config.getoption("--vm")], ids=" and ".join)


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S["full"] + 600)
def test_the_oldest_kernel_passes_the_tests(
    debian_12: Image, tmp_path: Path, request: pytest.FixtureRequest, suites: tuple[str, ...]
) -> None:
    extent: str = request.config.getoption("--vm")
    arguments = [*suites, "--", *OPTIONS, "-m", SELECTION[extent]]
    root = debian_root() if extent == "full" and not why_not() else None
    results = run_tests(debian_12, arguments, directory=tmp_path, timeout_s=TIMEOUT_S[extent], root=root)
    assert results.status is not None, f"the machine did not come to an end, within {TIMEOUT_S[extent]} s"
    outcomes = [read_report(report) for report in results.reports]
    counts = sum((outcome.counts for outcome in outcomes), Counter[str]())
    assert results.status == 0, "\n".join(line for outcome in outcomes for line in outcome.bad)
    assert counts["passed"] > 0
    release, cgroup, first_process = results.facts
    assert (release[:4], cgroup, first_process) == ("6.1.", "cgroup2fs", "systemd")
