"""Several pytest processes share one suite: a file of tests is run by the one that claims it first.

    pytest ──┐  claim test_a.py    run          one file in the directory for each claim
    pytest ──┘  claim test_b.py    run …

So none waits for the other at the end, whatever the files take. `tests/__main__.py` starts them, with
`-p tests.claims --claims DIRECTORY`; what is not claimed here is neither run nor reported.
"""

import os
from pathlib import Path

import pytest

DIRECTORY = pytest.StashKey[Path]()
CLAIMED = pytest.StashKey[dict[Path, bool]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--claims", type=Path, required=True, help="where those that share a suite claim its files")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[DIRECTORY], config.stash[CLAIMED] = config.getoption("--claims"), {}
    config.stash[DIRECTORY].mkdir(exist_ok=True)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """True, which is to say that it was seen to, for what others have claimed."""
    claimed = item.config.stash[CLAIMED]
    if item.path not in claimed:
        claimed[item.path] = claim(item.config.stash[DIRECTORY] / item.path.stem)
    return None if claimed[item.path] else True


def claim(name: Path) -> bool:
    """Whether it was nobody's; then it is ours."""
    try:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC))
    except FileExistsError:
        return False
    return True
