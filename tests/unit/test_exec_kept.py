"""What of ended processes is forgotten, in which order, on real files without processes."""

import fcntl
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sysproc.exec_files import Asked, ExecFiles
from sysproc.exec_kept import KEPT, KEPT_BYTES, MORE, forget, output_blocks, prune, worth_a_look
from sysproc.isolation.exec_state import Phase, Slot, StatePage

BLOCK = 4096


def exec_of(directory: Path, name: str, *, blocks: int, ended_ns: int = 0) -> ExecFiles:
    """A process with so much output and input; ended_ns 0: it runs, as far as its state page says."""
    files = ExecFiles(directory / name)
    asked = Asked((b"x",), b"", terminal=False, stdin=True, spool_bytes=1 << 24, drop_oldest=False, asked_at=0.0)
    files.claim(asked)
    files.make(asked).close()
    for file in ("stdout", "stdin"):
        (files.path / file).write_bytes(b"x" * (BLOCK * blocks - 1))
    os.close(StatePage.create(files.path / "state"))
    with page_of(files) as page:
        page._slots[Slot.PHASE], page._slots[Slot.ENDED_NS] = Phase.DONE if ended_ns else Phase.RUNNING, ended_ns
    return files


@contextmanager
def page_of(files: ExecFiles) -> Iterator[StatePage]:
    page = StatePage.open(files.path / "state")
    yield page
    page.close()


@contextmanager
def supervised(files: ExecFiles) -> Iterator[None]:
    """As if its supervisor lived."""
    fd = os.open(files.path / "state", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    yield
    os.close(fd)


def freed(files: ExecFiles) -> int:
    with page_of(files) as page:
        return page[Slot.STDOUT_FREED]


def test_what_was_confirmed_is_freed_at_the_end_and_its_input_too(tmp_path: Path) -> None:
    files = exec_of(tmp_path, "one", blocks=8, ended_ns=1)
    forget(files, {"stdout": 3 * BLOCK + 5, "stderr": 0})
    assert (freed(files), output_blocks(files)) == (3 * BLOCK + 5, 5 * BLOCK)
    assert (files.path / "stdout").read_bytes()[3 * BLOCK + 5 :] == b"x" * (5 * BLOCK - 6)
    assert (files.path / "stdin").stat().st_blocks == 0
    forget(files, {"stdout": 8 * BLOCK - 1, "stderr": 0})
    assert (freed(files), output_blocks(files)) == (8 * BLOCK - 1, 0)
    assert (files.path / "stdout").stat().st_size == 8 * BLOCK - 1, "offsets stay what they were"


def test_nothing_is_freed_while_it_runs(tmp_path: Path) -> None:
    files = exec_of(tmp_path, "one", blocks=2)
    with supervised(files):
        forget(files, None)
    assert (freed(files), output_blocks(files)) == (0, 2 * BLOCK)


@pytest.mark.parametrize(
    ("blocks", "most", "too_much"),
    [
        ([4, 4, 4], 12, []),
        ([4, 4, 4], 11, ["n0"]),
        ([4, 4, 4], 4, ["n1", "n0"]),
        ([1, 1, 100], 50, ["n1", "n0"]),
        ([0, 100], 50, []),
    ],
)
def test_too_much_output_goes_oldest_first_and_never_the_newest(
    tmp_path: Path, blocks: list[int], most: int, too_much: list[str]
) -> None:
    for number, count in enumerate(blocks):
        exec_of(tmp_path, f"n{number}", blocks=count or 1, ended_ns=number + 1)
        if not count:
            forget(ExecFiles(tmp_path / f"n{number}"), None)
    assert [files.exec_id for files in prune(tmp_path, most_bytes=most * BLOCK)] == too_much


def test_the_oldest_that_have_ended_go_and_what_runs_stays(tmp_path: Path) -> None:
    for number in range(1, 5):
        exec_of(tmp_path, f"n{number}", blocks=1, ended_ns=number)
    with supervised(exec_of(tmp_path, "n0", blocks=1)):
        assert prune(tmp_path, most=2) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["n0", "n3", "n4"]


def test_all_are_looked_at_when_many_have_ended_or_one_keeps_much(tmp_path: Path) -> None:
    for number in range(KEPT + MORE + 2):
        (tmp_path / f"n{number}").mkdir()
    assert worth_a_look(tmp_path, running=1, last_kept=0)
    assert not worth_a_look(tmp_path, running=2, last_kept=0)
    assert worth_a_look(tmp_path, running=2, last_kept=KEPT_BYTES // 64)
    assert not worth_a_look(tmp_path / "destroyed meanwhile", running=0, last_kept=0)


def test_an_id_is_free_again_if_the_disk_was_full_when_it_was_taken(tmp_path: Path) -> None:
    files = ExecFiles(tmp_path / "one")
    asked = Asked((b"x",), b"", terminal=False, stdin=True, spool_bytes=1 << 24, drop_oldest=False, asked_at=0.0)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            files.claim(asked)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not files.path.exists()
    files.claim(asked)
