"""The commands that README shows: each is run, in order, and prints what is shown there.

How a page is read is in `tests.e2e.console_blocks`.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sysproc_client import Client
from tests.e2e.console_blocks import commands_of, is_like, printed_by
from tests.e2e.daemon import RunningDaemon
from tests.leaks import leak_check

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def other() -> Iterator[RunningDaemon]:
    """The service on another machine: here, one with directories and cgroups of its own."""
    with RunningDaemon() as running:
        with Client(running.endpoint) as client:
            client.create(image="busybox").destroy()
        with leak_check(running.scope()):
            yield running
            delete_volumes(running)


def delete_volumes(daemon: RunningDaemon) -> None:
    with Client(daemon.endpoint) as client:
        for volume in client.volumes.list():
            volume.delete()


def test_the_tour_of_readme_is_as_it_is_shown(daemon: RunningDaemon, other: RunningDaemon, tmp_path: Path) -> None:
    commands = commands_of(README.read_text())
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SYSPROC_ENDPOINT": daemon.endpoint,
        "OTHER": other.endpoint,
    }
    printed = [*printed_by(commands, directory=tmp_path, environment=environment)]
    assert len(printed) == len(commands) > 0
    for command, said in zip(commands, printed, strict=True):
        assert is_like(said, command.printed), f"README.md:{command.line}: {command.text}\nprints\n{said}"
    daemon.destroy_all()
    delete_volumes(daemon)
