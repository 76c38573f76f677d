"""A test that fails, and whose fixture then hangs, ends with its timeout: see `tests.conftest`."""

import subprocess
import sys
from pathlib import Path

HANGS = """
import asyncio
import pytest

@pytest.fixture
async def waited_for():
    yield
    await asyncio.Event().wait()

async def test_fails(waited_for):
    raise ValueError("the first failure")
"""


def test_a_fixture_that_hangs_after_a_failure_is_ended(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(HANGS)
    options = ("-p", "tests.conftest", "-c", "/dev/null", "--rootdir", str(tmp_path), "-o", "asyncio_mode=auto")
    command = [sys.executable, "-m", "pytest", *options, "--timeout=1", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "the first failure" in ended.stdout
    assert "1 failed, 1 error" in ended.stdout, ended.stdout
