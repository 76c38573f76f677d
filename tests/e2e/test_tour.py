"""The commands and programs that README shows: each is run, in order, and prints what is shown there.

How a page is read is in `tests.e2e.console_blocks`.
"""

import os
import subprocess
import sys
import textwrap
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


# In an interpreter that takes `await` outside of functions, as these pages are read.
RUN = """
import ast, asyncio, inspect, sys
code = compile(sys.argv[1], "<page>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
made = eval(code, {"__name__": "__main__"})
if inspect.isawaitable(made):
    asyncio.run(made)
"""
SYNC = "from sysproc_client import Client\nwith Client() as client, client.create(image='busybox') as box:\n"
ASYNC = (
    "from sysproc_client.aio import AsyncClient\n"
    "async with AsyncClient() as client, client.create(image='busybox') as box:\n"
)
# Of which page, the how manyth, what goes before it, and what is printed at the end.
BLOCKS = [
    ("README.md", 0, "", "0 b'HELLO'"),
    ("clients/python/README.md", 0, "", "uid=0(root) gid=0(root)"),
    ("clients/python/README.md", 1, "", "uid=0(root) gid=0(root)"),
    ("clients/python/README.md", 2, SYNC, "0"),
    ("clients/python/README.md", 3, ASYNC, "0"),
    ("clients/python/README.md", 4, ASYNC, ""),
]


@pytest.mark.parametrize(("page", "number", "before", "last"), BLOCKS)
def test_the_programs_that_are_shown_run(daemon: RunningDaemon, page: str, number: int, before: str, last: str) -> None:
    shown = python_of((README.parent / page).read_text())[number]
    program = before + (textwrap.indent(shown, "    ") if before else shown)
    ran = subprocess.run(
        [sys.executable, "-c", RUN, program],
        env={**os.environ, "SYSPROC_ENDPOINT": daemon.endpoint},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.strip().rsplit("\n", 1)[-1] == last


def python_of(page: str) -> list[str]:
    """The blocks of Python of a page."""
    return [block.partition("```")[0] for block in page.split("```python\n")[1:]]
