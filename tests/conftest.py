"""Markers and options of all tests: who needs root, how much of what takes long to run.

Fixtures belong to the suite that uses them; the leak check that suites share is `tests.leaks`.
"""

import os
import signal
from pathlib import Path

import pytest
import pytest_timeout  # type: ignore[import-untyped]  # it has none

from tests.reaper import stand_in_front

HERE = Path(__file__).parent
WITHOUT_ROOT = frozenset({"lint", "unit"})


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--vm",
        choices=("short", "full"),
        default="short",
        help="how much of the kernel and e2e tests the virtual machine runs: a few minutes, or everything",
    )
    parser.addoption("--cuts", type=int, default=3, help="how many power cuts tests/crash takes under one load")


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts what runs in the background with it ignored, and whatever is started from there inherits that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.geteuid() == 0 and not config.option.collectonly:
        stand_in_front()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """After a test has failed, pytest-timeout leaves time for a debugger: what then hangs would hang for ever."""
    settings = pytest_timeout._get_item_settings(item)
    if settings.timeout:
        item.config.hook.pytest_timeout_set_timer(item=item, settings=settings)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A file without a test of the machine's short set is not even imported for it: emulated, that takes a minute."""
    wanted = "vm" in config.option.markexpr.split() and "not vm" not in config.option.markexpr
    is_test = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    return True if wanted and is_test and "mark.vm" not in collection_path.read_text() else None


def needs_root(item: pytest.Item) -> bool:
    """All suites but lint and unit do, and whatever is marked."""
    return item.path.relative_to(HERE).parts[0] not in WITHOUT_ROOT or item.get_closest_marker("root") is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    for item in items:
        if needs_root(item):
            item.add_marker(pytest.mark.skip(reason="needs root: run `make test` as root to include it"))
