"""mypy and ruff find nothing. What they look for is set in `pyproject.toml`.

Rules that neither of them knows are in `tests/lint/test_house_rules.py`.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.lint.sources import ROOT

BIN = Path(sys.executable).parent


def expect_content(*command: str) -> None:
    """Run a tool of the virtual environment; the test fails with what the tool says if it is not content."""
    done = subprocess.run([BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{' '.join(command)}\n{done.stdout}{done.stderr}", pytrace=False)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_mypy_strict_finds_nothing() -> None:
    expect_content("mypy")


def test_ruff_finds_nothing() -> None:
    expect_content("ruff", "check", "--output-format=concise", ".")


def test_the_formatter_would_change_nothing() -> None:
    expect_content("ruff", "format", "--check", "--output-format=concise", ".")
