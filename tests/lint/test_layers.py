"""Imports go downward only: the contracts of import-linter, and what is seen at run time.

The contracts are in `pyproject.toml`; `docs/ARCHITECTURE.md` draws the layers.
"""

import subprocess
import sys

import pytest

from tests.lint.sources import ROOT, below
from tests.lint.test_types_and_style import expect_content

LAUNCHER_MAY_IMPORT = {"errors", "failpoints", "ids", "isolation", "linux", "sparse", "undo"}


def modules_after(statement: str) -> set[str]:
    """What is loaded in a fresh interpreter after a statement, less what is loaded before any."""
    code = f"import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(done.stderr, pytrace=False)
    return set(done.stdout.split())


def test_imports_go_downward_only() -> None:
    expect_content("lint-imports", "--cache-dir", ".cache/import-linter")


def test_the_launcher_is_standard_library_linux_and_isolation_only() -> None:
    loaded = modules_after("import sysproc.isolation.launcher")
    foreign = {name for name in loaded if name.split(".")[0] not in {*sys.stdlib_module_names, "sysproc"}}
    ours = {name.split(".")[1] for name in loaded if name.startswith("sysproc.")}
    assert (foreign, ours - LAUNCHER_MAY_IMPORT) == (set(), set())


def test_the_client_does_not_load_the_server() -> None:
    loaded = modules_after("import sysproc_client, sysproc_client.cli")
    assert {name for name in loaded if name.split(".")[0] == "sysproc"} == set()


def test_kernel_tests_never_load_grpc() -> None:
    """gRPC starts threads, and a process with threads can neither fork safely nor make a user namespace."""
    imported = [
        f"{source}: {name}"
        for source in below("tests/kernel")
        for name in source.imports()
        if name.split(".")[0] == "grpc"
    ]
    assert imported == []
    collect = "pytest.main(['-q', '--collect-only', 'tests/kernel'])"
    code = f"import pytest, sys; {collect}; sys.exit('grpc' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL, check=False).returncode == 0
    )
