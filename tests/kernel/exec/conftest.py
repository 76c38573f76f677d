"""A small container for the tests of exec, made once, and supervised processes in it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sysproc.isolation.exec_state import ProcessEnd
from tests.compiled import compiled
from tests.kernel.exec.supervised import Box, Supervised, Wish

BASE = 0x70000000 + 4000 * 65536
ROOT = Path(__file__).parents[3]


@pytest.fixture
def make_box() -> Iterator[Callable[[], Box]]:
    with ExitStack() as stack:

        def make() -> Box:
            command = [sys.executable, "-m", "tests.kernel.exec.box", str(BASE)]
            parent = stack.enter_context(
                subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            pidfd = os.pidfd_open(pid)
            stack.callback(os.close, pidfd)
            return Box(pid, pidfd, BASE)

        yield make


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    command = [sys.executable, "-m", "tests.kernel.exec.box", str(BASE)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        pidfd = os.pidfd_open(pid)
        yield Box(pid, pidfd, BASE)
        os.close(pidfd)


def put_program(box: Box, source: Path) -> str:
    """Compile a program of a test, and put it into the box; its path there."""
    program = compiled(source)
    if program is None:
        pytest.skip("no C compiler here")
    inside = Path(f"/proc/{box.init_pid}/root/bin/{source.stem}")
    inside.write_bytes(program.read_bytes())
    inside.chmod(0o755)
    return f"/bin/{source.stem}"


Start = Callable[..., Supervised]


@pytest.fixture
def start(box: Box, tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:
        count = 0

        def begin(*argv: str | bytes, at: Box = box, wish: Wish | None = None) -> Supervised:
            nonlocal count
            count += 1
            raw = [os.fsencode(word) for word in argv]
            return stack.enter_context(Supervised(at, tmp_path / str(count), raw, wish))

        yield begin


@pytest.fixture
def run(start: Start) -> Callable[..., tuple[ProcessEnd, bytes, bytes]]:
    def to_end(*argv: str | bytes, wish: Wish | None = None) -> tuple[ProcessEnd, bytes, bytes]:
        supervised = start(*argv, wish=wish)
        end = supervised.wait_end()
        return end, supervised.output(), supervised.output("stderr")

    return to_end
